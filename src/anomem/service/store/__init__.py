"""Store: tables, migrations and queries of the station."""
