"""What users import; see ``starburst`` itself."""
