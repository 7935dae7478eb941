"""Development: reload when files change (--reload)."""
