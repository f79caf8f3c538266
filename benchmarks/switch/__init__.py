"""What a switch costs, with real engines: warm templates beside cold starts (`make bench-switch`)."""
