"""The page of one study or several: one HTML file that opens offline. Every sentence comes from the records.

page.py      what stands where
words.py     sentences
figures.py   pictures, as data within the page
tables.py    tables
scaling.py   ranks beyond those that were measured, by a model
"""
