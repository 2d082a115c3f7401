from chervil import Chervil

app = Chervil(
    "shop",
    include=["shop.tasks"],
    task_queues=["celery", "mail"],
    task_routes={"shop.tasks.send_receipt": "mail"},
    task_time_limit=60,
)
