"""The sentences of `docs/performance.md`. Figures come from a run; see `page.py`."""

TITLE = """# Performance

This page is rendered from the results of a run, `docs/performance.json` and `bench/stages.json`; `make bench` writes
it anew.

The gateway has on what a user has on: a stored token with all four limits (requests and tokens a minute, requests at
a time, a budget), metering, prices, the ledger, the access log in a file, and metrics. The other gateways check one
key. All of them run on one core, one at a time; the load and the upstream run on the other. A ratio is computed for
each round, because the same code is twice as fast on an idle machine as on a busy one."""

PLOTS = """![Requests a second, 0.3 KiB](performance/requests.svg)
![CPU a request, 0.3 KiB](performance/cpu.svg)
![Requests a second, 16 KiB](performance/requests-16k.svg)
![CPU a stream](performance/streams.svg)

The line within each bar goes from the smallest to the largest round."""

REQUESTS = """`wrk` with 32 kept-alive connections; requests and responses have the size named. For 0.3 KiB they have
280 and 576 bytes. CPU is user and system time of a server with its threads, also of what it writes in the second
after the load. `nginx` has a map of keys before the same upstream: what a server that checks keys can do at best.
`direct` is the upstream itself, on the core of the load."""

ONE_CONNECTION = """`wrk` with one connection, 0.3 KiB. *Added* is the difference to `direct`."""

STREAMS = """100 streams at once, each with 100 events, 10 ms apart, on a new connection. Every stream has to be
complete. A stream that is on time takes 1.0 s."""

STAGES = """`make bench-stages` runs chat requests of a limited token through a gateway in one process, between
connections in memory: all of the gateway's own code, without the kernel's work for sockets. *CPU* divides the time of
the process by how often a timer finds it in which stage; the ledger's thread is part of *record*. *Instructions* are
those of Python's interpreter, counted one by one; they depend on the version of Python, and on nothing else. A test
fails when their sum grows by more than 5 %. What a stage takes in C (parsers, hashes, `memcpy`) is in its CPU time,
not in its instructions. *event loop* is the loop's part, and that of the load itself.

*parse* reads the head and starts the request's pipeline; *route* finds the endpoint and the model's provider;
*authenticate* finds the token and what it may; *read the body* takes and checks the JSON; *admit* estimates, reserves
and settles the four limits; *send* writes the request to the upstream and reads its response; *meter* reads the usage
and prices it; *record* writes the ledger and last uses; *answer* writes the response; *log* writes the access line;
*metrics* counts."""

NOT_MEASURED = """## What is not measured

* vllm-router 0.1.17 with a check of the client's key: its `--api-key` is the one for its workers, and its
  command line has no other.
* Two workers against one: load and upstream need a core, so that the third is missing on a machine with two.
* 1,000 streams at once with the time of each event; tokens from 10 to 100,000; bodies from 1 KiB to 20 MiB. Tests
  hold that bodies are read without blocking the event loop, see [testing.md](testing.md).
* LiteLLM, smol-llm-proxy and Portkey: LiteLLM's proxy publishes 60 requests a second on a core, two orders of
  magnitude below the servers of this page.
* TLS, other networks than loopback, and upstreams that are slow: the upstream here answers at once, so that the
  gateway is what is seen."""

REPEAT = """## How to repeat it

It needs Linux, two cores, and Debian's packages `wrk` and `nginx-light`.

```
make bench-peers   # other gateways at pinned versions, each in an environment of its own below bench/.peers
make bench         # about ten minutes; writes this page
make bench-stages  # the table of stages alone
make bench-quick   # less than a minute: the gateway, a bare relay, vllm-router
```

`make bench ARGS="--python /usr/bin/python3"` runs the gateway with another interpreter, in which its requirements are
installed. Many interpreters that are compiled by hand are built without profile-guided optimization, and are a third
slower than Debian's. Servers that are not installed are told at the start and left out."""
