"""What a run comes to: figures from raw records, and whether they count."""
