CELERY_BROKER_URL = os.environ.get("REDIS_URL")
