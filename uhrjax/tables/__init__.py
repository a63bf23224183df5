"""The papers' tables: every row, how it is run, what it gave beside what is printed."""
