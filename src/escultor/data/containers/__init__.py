"""What files hold, whatever their container: text in any encoding, JSON, tables, compressed, in folders."""
