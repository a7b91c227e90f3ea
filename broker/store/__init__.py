"""What is on disk: jobs, their bytes, and the small things that recovery starts from. Imports nothing by itself."""
