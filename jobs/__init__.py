"""Job specs to run or copy."""
