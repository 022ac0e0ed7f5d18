"""The same task on other people's Reformers, and their weights in ours."""
