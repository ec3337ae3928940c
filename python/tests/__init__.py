import logging

# What the code under test logs is looked at where a test asks for it, and belongs to no report.
logging.getLogger().addHandler(logging.NullHandler())
