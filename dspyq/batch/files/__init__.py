"""What a batch reads: files of rows, in whatever form."""
