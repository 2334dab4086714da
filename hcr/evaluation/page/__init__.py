"""report.html: an evaluation as one page to look at, pictures and charts inside, without network or plot library."""
