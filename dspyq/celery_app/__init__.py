"""The Celery application: messaging, the result backend, remote control and revocation."""
