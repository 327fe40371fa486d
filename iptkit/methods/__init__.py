"""The ladder of the course, one method a file, from words to five trained parameters per task."""
