"""One thin file for each host that severity_clf plugs into."""
