"""What `pytest --pyargs npreparam.conformance --target ...` collects."""
