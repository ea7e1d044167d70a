"""A frozen network looks at each picture once; the rows are kept."""
