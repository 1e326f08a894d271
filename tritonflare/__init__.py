"""The console command: each subcommand composes the packages that do the work."""
