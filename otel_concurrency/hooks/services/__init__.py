"""What a service serves: requests of web frameworks, tasks of Celery."""
