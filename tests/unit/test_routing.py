"""Where tasks go."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chervil.drivers import contracts
from chervil.exceptions import ImproperlyConfigured, QueueNotFound
from chervil.routing import Broadcast, Exchange, Queue, Route, Router, binding, topic_matches
from chervil.settings import Settings


def router(**settings: Any) -> Router:
    conf = Settings(environ={})
    conf.update(settings)
    return Router(conf)


def queue_of(route: Route) -> str:
    return route.queue


# --- without routes -----------------------------------------------------------------


def test_everything_goes_to_the_default_queue() -> None:
    assert router().route("shop.pay") == Route("celery", "", "celery", None, {}, ("celery",))
    assert router(task_default_queue="shop").route("shop.pay").queue == "shop"


def test_a_call_names_its_queue() -> None:
    route = router().route("shop.pay", {"queue": "slow", "countdown": 3})
    assert route == Route("slow", "", "slow", None, {}, ("slow",))


def test_none_means_not_given() -> None:
    options = dict.fromkeys(("queue", "exchange", "routing_key", "priority"))
    assert router().route("shop.pay", options).queue == "celery"


def test_priorities() -> None:
    assert router().route("a", {"priority": 0}).priority == 0
    assert router(task_default_priority=3).route("a").priority == 3
    assert router(task_default_priority=3).route("a", {"priority": 0}).priority == 0
    assert router(task_routes={"a": {"priority": 7}}).route("a").priority == 7


# --- task_routes ---------------------------------------------------------------------


def by_function(name, args, kwargs, options, task=None, **kw):  # type: ignore[no-untyped-def]
    if name.startswith("video."):
        return {"queue": "videos", "serializer": "yaml"}
    if args and args[0] == "big":
        return "big"
    if options.get("countdown"):
        return Queue("delayed")
    return None


class ByMethod:
    def route_for_task(self, task, args=None, kwargs=None):  # type: ignore[no-untyped-def]
        return {"queue": "method"} if task == "m" else None


ROUTES: list[Any] = [
    {"feeds.import": "feeds", "web.*": {"queue": "web"}, re.compile(r"(video|image)\."): "media"},
    [("feeds.import", "feeds"), ("web.*", "web"), (re.compile(r"(video|image)\."), "media")],
    ([("feeds.import", "feeds")], {"web.*": "web", re.compile(r"(video|image)\."): "media"}),
    [[("feeds.import", "feeds"), ("web.*", "web")], (re.compile(r"(video|image)\."), "media")],
]


@pytest.mark.parametrize("routes", ROUTES)
@pytest.mark.parametrize(
    ("name", "queue"),
    [
        ("feeds.import", "feeds"),
        ("feeds.import.all", "celery"),
        ("web.show", "web"),
        ("web", "celery"),
        ("image.scale", "media"),
        ("my.image.scale", "celery"),
    ],
)
def test_names_globs_and_regular_expressions(routes: Any, name: str, queue: str) -> None:
    assert router(task_routes=routes).route(name).queue == queue


def test_exact_names_come_before_patterns_and_patterns_in_their_order() -> None:
    r = router(task_routes={"*": "all", "feeds.*": "feeds", "feeds.x": "x"})
    assert [r.route(name).queue for name in ("feeds.x", "feeds.y")] == ["x", "all"]


def test_several_maps_are_asked_one_after_the_other() -> None:
    r = router(task_routes=[{"feeds.*": "first"}, {"feeds.x": "second", "web.x": "web"}])
    assert [r.route(name).queue for name in ("feeds.x", "web.x")] == ["first", "web"]


@pytest.mark.parametrize(
    "routes",
    [by_function, f"{__name__}.by_function", f"{__name__}:by_function", [by_function], ()],
)
def test_functions(routes: Any) -> None:
    r = router(task_routes=routes or [{"nothing": "x"}, f"{__name__}:by_function"])
    route = r.route("video.scale")
    assert (route.queue, route.options) == ("videos", {"serializer": "yaml"})
    assert r.route("a", {}, ("big",)).queue == "big"
    assert r.route("a", {}, ("small",)).queue == "celery"
    assert r.route("a", {"countdown": 1}).queue == "delayed"
    assert r.depends_on_arguments("a")


@pytest.mark.parametrize("routes", [ByMethod(), ByMethod, [ByMethod], f"{__name__}.ByMethod"])
def test_objects_with_route_for_task(routes: Any) -> None:
    r = router(task_routes=routes)
    assert [r.route(name).queue for name in ("m", "n")] == ["method", "celery"]


def test_what_a_route_says_besides_yields_to_the_call() -> None:
    r = router(task_routes={"a": {"queue": "x", "serializer": "yaml", "expires": 9}})
    assert r.route("a").options == {"serializer": "yaml", "expires": 9}
    assert r.route("a", {"serializer": "json"}).options == {"expires": 9}
    assert r.route("a", {"serializer": None}).options == {"serializer": "yaml", "expires": 9}
    assert r.route("a").options == {"serializer": "yaml", "expires": 9}


def test_precedence() -> None:
    task = SimpleNamespace(queue="own", exchange=None, routing_key=None, priority=1)
    routed = router(task_routes={"a": {"queue": "routed", "priority": 5}})
    assert routed.route("a", {"queue": "called"}, task=task).queue == "called"
    assert routed.route("a", {"queue": "called"}, task=task).priority == 5
    assert (routed.route("a", task=task).queue, routed.route("a", task=task).priority) == (
        "routed",
        5,
    )
    assert (routed.route("b", task=task).queue, routed.route("b", task=task).priority) == ("own", 1)
    assert routed.route("b").queue == "celery"


def test_whoever_names_a_queue_names_the_whole_address() -> None:
    topic = Exchange("feeds", "topic")
    r = router(
        task_queues=[Queue("celery"), Queue("a", topic, "a.#"), Queue("b", topic, "b.#")],
        task_routes={"t": {"queue": "a", "routing_key": "a.routed"}},
    )
    route = r.route("t")
    assert (route.queue, route.exchange, route.routing_key) == ("a", "feeds", "a.routed")
    route = r.route("t", {"queue": "b"})
    assert (route.queue, route.exchange, route.routing_key) == ("b", "feeds", "b.#")
    route = r.route("t", {"routing_key": "a.called"})
    assert (route.queue, route.exchange, route.routing_key) == ("a", "feeds", "a.called")


@pytest.mark.parametrize(
    ("routes", "text"),
    [
        ({"a": 1}, "the route of 'a'"),
        ({"a": None}, "the route of 'a'"),
        ({"a": {"queue": 1}}, "'queue' must not be 1"),
        ({"a": {"priority": "high"}}, "'priority' must not be 'high'"),
        ({"a": {"que": "b"}}, "did you mean 'queue'"),
        ({"a": {1: "b"}}, "1 is not the name"),
        ({1: "b"}, "1 for a name"),
        ({"": "b"}, "'' for a name"),
        ([1], "task_routes has 1"),
        ([("a", "b", "c")], "task_routes has"),
        ("feeds", "'feeds', which cannot be imported"),
        ("chervil.nothing.here", "cannot be imported"),
        (("feeds.*", "feeds"), "a pair in a list"),
    ],
)
def test_wrong_shapes_are_found_at_the_start(routes: Any, text: str) -> None:
    with pytest.raises(ImproperlyConfigured) as error:
        router(task_routes=routes)
    assert text in str(error.value)


@pytest.mark.parametrize("answer", [1, ["a"], {"queue": 1}, "", object()])
def test_a_wrong_answer_of_a_function_names_the_function(answer: Any) -> None:
    def strange(name, args, kwargs, options, task=None):  # type: ignore[no-untyped-def]
        return answer

    with pytest.raises(ImproperlyConfigured, match="strange"):
        router(task_routes=strange).route("a")


# --- queues ----------------------------------------------------------------------------


def test_missing_queues_are_made_unless_that_is_off() -> None:
    assert router(task_queues=["a"]).route("t", {"queue": "b"}).queue == "b"
    strict = router(task_queues=["alpha", "beta", "celery"], task_create_missing_queues=False)
    assert strict.route("t", {"queue": "alpha"}).queue == "alpha"
    for queue in ("alpa", Queue("alpa")):
        with pytest.raises(QueueNotFound) as error:
            strict.route("t", {"queue": queue})
        assert "'alpa'" in str(error.value)
        assert "alpha, beta, celery" in str(error.value)
        assert "did you mean 'alpha'" in str(error.value)


def test_a_route_to_a_missing_queue_is_found_at_the_start() -> None:
    with pytest.raises(QueueNotFound, match="'feeds'"):
        router(
            task_queues=["celery"],
            task_routes={"f.*": "feeds"},
            task_create_missing_queues=False,
        )


def test_queues_take_kombus_arguments() -> None:
    queue = Queue(
        "a",
        Exchange("x", type="topic", durable=False),
        routing_key="a.#",
        max_priority=9,
        expires=1.5,
        message_ttl=60,
        max_length=10,
        max_length_bytes=1000,
        durable=False,
        queue_arguments={"x-queue-mode": "lazy"},
        binding_arguments={"x": 1},
    )
    assert router(task_queues=[queue]).select() == [
        contracts.Queue(
            name="a",
            exchange="x",
            exchange_type="topic",
            routing_key="a.#",
            max_priority=9,
            durable=False,
            queue_arguments={
                "x-queue-mode": "lazy",
                "x-expires": 1500,
                "x-message-ttl": 60_000,
                "x-max-length": 10,
                "x-max-length-bytes": 1000,
                "x-max-priority": 9,
            },
            binding_arguments={"x": 1},
            bindings=[contracts.Binding("x", "topic", "a.#", {"x": 1}, durable=False)],
        )
    ]


def test_what_a_queue_leaves_out_comes_from_the_settings() -> None:
    r = router(
        task_queues=[Queue("a"), Queue("b", "x"), Queue("c", max_priority=3), Queue("d", "x", "k")],
        task_default_exchange="media",
        task_default_routing_key="media.default",
        task_queue_max_priority=10,
    )
    found = {q.name: (q.exchange, q.routing_key, q.max_priority) for q in r.select()}
    assert found == {
        "a": ("media", "a", 10),
        "b": ("x", "media.default", 10),
        "c": ("media", "c", 3),
        "d": ("x", "k", 10),
    }


def test_queues_as_a_dict_and_as_names() -> None:
    r = router(
        task_queues={
            "a": {"exchange": "x", "exchange_type": "topic", "binding_key": "a.*"},
            "b": {"queue_arguments": {"x-max-priority": 4}},
            "c": Queue("c", routing_key="k"),
        }
    )
    assert [(q.name, q.exchange_type, q.routing_key, q.max_priority) for q in r.select()] == [
        ("a", "topic", "a.*", None),
        ("b", "direct", "b", 4),
        ("c", "direct", "k", None),
    ]
    assert [q.name for q in router(task_queues=["a", "b"]).select()] == ["a", "b"]
    with pytest.raises(ImproperlyConfigured, match=r"queue 'a' in task_queues.*colour"):
        router(task_queues={"a": {"colour": 1}})


def test_queue_objects_of_kombu_will_do() -> None:
    exchange = SimpleNamespace(name="x", type="topic", durable=True)
    foreign = SimpleNamespace(
        name="a", exchange=exchange, routing_key="a.#", queue_arguments={"x-max-priority": 2}
    )
    plain = SimpleNamespace(name="b", exchange=SimpleNamespace(name="", type="direct"))
    r = router(task_queues=[foreign, plain])
    assert [(q.exchange, q.exchange_type, q.max_priority) for q in r.select()] == [
        ("x", "topic", 2),
        ("celery", "direct", None),
    ]
    assert r.route("t", {"queue": foreign}).exchange == "x"


@pytest.mark.parametrize(
    "make",
    [
        lambda: Queue(""),
        lambda: Queue(3),  # type: ignore[arg-type]
        lambda: Queue("a", expires=-1),
        lambda: Queue("a", max_priority="9"),  # type: ignore[arg-type]
        lambda: Exchange("x", "headers"),
        lambda: router(task_queues=[Queue("a", "x"), Queue("a", "y")]),
        lambda: router(task_queues=[Queue("a", Exchange("x", "topic")), Queue("b", "x")]),
    ],
)
def test_wrong_queues(make: Any) -> None:
    with pytest.raises(ImproperlyConfigured):
        make()


def test_a_queue_given_in_the_call_keeps_its_exchange() -> None:
    route = router().route("t", {"queue": Queue("new", Exchange("x", "topic"), "a.b")})
    assert (route.queue, route.exchange, route.routing_key) == ("new", "x", "a.b")


# --- exchanges ---------------------------------------------------------------------------

MEDIA = Exchange("media", "topic")
QUEUES = [
    Queue("celery"),
    Queue("videos", MEDIA, "video.#"),
    Queue("images", MEDIA, "image.*"),
    Queue("all", MEDIA, "#"),
    Queue("direct", Exchange("d"), "key"),
    Queue("one", Exchange("f", "fanout")),
    Queue("two", Exchange("f", "fanout")),
    Queue("many", [binding(Exchange("d"), "k1"), binding(Exchange("d"), "k2")]),
]


@pytest.mark.parametrize(
    ("exchange", "key", "queues"),
    [
        ("media", "video", ["videos", "all"]),
        ("media", "video.a.b", ["videos", "all"]),
        ("media", "image.a", ["images", "all"]),
        ("media", "image.a.b", ["all"]),
        ("d", "key", ["direct"]),
        ("d", "k2", ["many"]),
        ("d", "other", []),
        ("f", "whatever", ["one", "two"]),
        ("nowhere", "key", []),
        ("", "videos", ["videos"]),
        ("", "made.up", ["made.up"]),
        ("celery", "celery", ["celery"]),
    ],
)
def test_addresses_lead_to_queues(exchange: str, key: str, queues: list[str]) -> None:
    r = router(task_queues=QUEUES)
    assert r.queues_for(exchange, key) == queues
    assert r.queues_for(exchange, key) == queues  # remembered


def test_calls_by_exchange_and_key() -> None:
    r = router(task_queues=QUEUES)
    route = r.route("t", {"exchange": "media", "routing_key": "image.a"})
    assert route == Route("images", "media", "image.a", None, {}, ("images", "all"))
    assert r.route("t", {"exchange": "f"}).queues == ("one", "two")
    assert r.route("t", {"exchange": Exchange("d"), "routing_key": "key"}).queue == "direct"
    # The queue that is named gets it, whatever its binding says.
    route = r.route("t", {"queue": "videos", "routing_key": "image.x"})
    assert route.queues == ("videos", "images", "all")
    with pytest.raises(QueueNotFound, match=r"'d'.*'nothing'"):
        r.route("t", {"exchange": "d", "routing_key": "nothing"})
    # A key alone means the default exchange, and the default queue when that has none.
    assert r.route("t", {"routing_key": "nothing"}).queue == "celery"


def test_sending_to_a_topic_queue_uses_its_key() -> None:
    r = router(task_queues=[Queue("a", MEDIA, "media.a")], task_routes={"t": {"queue": "a"}})
    assert r.route("t") == Route("a", "media", "media.a", None, {}, ("a",))


def test_broadcast() -> None:
    one, other = Broadcast("news"), Broadcast("news")
    assert one.name != other.name
    assert one.alias == "news"
    r = router(task_queues=[Queue("celery"), one])
    assert [q.exchange_type for q in r.select(["news"])] == ["fanout"]
    # Nobody else serves the queue that this process made up.
    with pytest.raises(QueueNotFound, match="news"):
        r.route("t", {"queue": "news"})
    with pytest.raises(QueueNotFound):
        r.route("t", {"exchange": "news"})
    named = router(
        task_queues=[Broadcast("news", queue="news.a"), Broadcast("news", queue="news.b")]
    )
    assert set(named.route("t", {"queue": "news"}).queues) == {"news.a", "news.b"}


WORDS = st.lists(st.sampled_from(["a", "b", "", "a.b", "x"]), max_size=4).map(".".join)


def slow_match(pattern: list[str], key: list[str]) -> bool:
    """The definition, word by word."""
    if not pattern:
        return not key
    if pattern[0] == "#":
        return slow_match(pattern[1:], key) or (bool(key) and slow_match(pattern, key[1:]))
    return bool(key) and pattern[0] in ("*", key[0]) and slow_match(pattern[1:], key[1:])


@given(
    pattern=st.lists(st.sampled_from(["a", "b", "*", "#", "x"]), min_size=1, max_size=5),
    key=st.lists(st.sampled_from(["a", "b", "x", "ab", "+"]), max_size=6),
)
def test_topic_patterns(pattern: list[str], key: list[str]) -> None:
    assert topic_matches(".".join(pattern), ".".join(key)) == slow_match(pattern, key)


# --- for workers ----------------------------------------------------------------------------


def test_selecting_queues() -> None:
    def names(r: Router, *args: Any) -> list[str]:
        return [queue.name for queue in r.select(*args)]

    assert names(router()) == ["celery"]
    assert names(router(), "a, b") == ["a", "b"]
    assert names(router(), ["a", "a"]) == ["a"]
    listed = router(task_queues=["a", "b", "c"])
    assert names(listed) == ["a", "b", "c"]
    assert names(listed, None, "b") == ["a", "c"]
    assert names(listed, "c,d", ["d"]) == ["c"]
    with pytest.raises(ImproperlyConfigured, match=r"'z'.*a, b, c"):
        listed.select(None, "z")
    with pytest.raises(ImproperlyConfigured, match="no queue is left"):
        listed.select("a", "a")
    strict = router(task_queues=["a", "b"], task_create_missing_queues=False)
    with pytest.raises(QueueNotFound, match="a, b"):
        strict.select("z")


# --- memory and time --------------------------------------------------------------------------


def test_changed_settings_count_at_once() -> None:
    conf = Settings(environ={})
    r = Router(conf)
    assert r.route("a").queue == "celery"
    assert not r.depends_on_arguments("a")
    conf.task_routes = {"a": "b"}
    assert r.route("a").queue == "b"
    conf.task_default_queue = "other"
    assert r.queues.default == "other"
    conf.task_routes = by_function
    assert r.depends_on_arguments("a")


def test_made_up_names_do_not_fill_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chervil.routing.router._MOST_REMEMBERED", 100)
    r = router()
    for number in range(1000):
        r.route(f"task{number}", {"queue": f"queue{number}"})
    assert len(r._by_name) <= 100
    assert len(r.queues) == 1


def test_a_known_route_costs_little() -> None:
    r = router(task_routes={"feeds.*": "feeds"})

    def best(number: int = 2000) -> float:
        times = []
        for _ in range(20):
            start = time.perf_counter()
            for _ in range(number):
                r.route("feeds.import")
            times.append((time.perf_counter() - start) / number)
        return min(times)

    assert best() < 2e-6  # 0.12 µs on an idle machine
