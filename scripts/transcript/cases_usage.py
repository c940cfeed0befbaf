"""What was used: asked for in every way, when all of it is written."""

from scripts.transcript.fixtures import ADMIN, MEMBER, SERVICE, token_id
from scripts.transcript.session import Session


def record_usage(session: Session) -> None:
    for query in (
        "", "group_by=token", "group_by=model", "group_by=owner", "bucket=hour", "bucket=hour&group_by=token&format=csv",
        "format=csv", "group_by=model&format=csv", "group_by=owner&format=csv", f"token_id={token_id('member')}",
        "token_id=tok_unknown", "token_id=environment", "from=2020-01-01&to=2020-02-01",
        "from=2020-01-01T10:30:00Z&to=2020-01-01T11:30:00Z&bucket=hour", "format=json",
    ):  # fmt: skip
        session.ask(f"usage ?{query}", f"GET /api/usage?{query}", key=ADMIN)
    for query in (
        "from=soon", "to=x", "from=2020-01-02&to=2020-01-01", "from=2020-01-01&to=2020-01-01", "bucket=minute", "group_by=role",
        "format=xml", "a=b", "format=csv&format=json", "from=1971-01-01&bucket=hour", "from=1960-01-01", "to=9999-99-99",
    ):  # fmt: skip
        session.ask(f"usage ?{query}", f"GET /api/usage?{query}", key=ADMIN)
    for name, key in (("member", MEMBER), ("service", SERVICE), ("nobody", None)):
        session.ask(f"usage as {name}", "GET /api/usage?group_by=token", key=key)
        session.ask(f"usage of another as {name}", f"GET /api/usage?token_id={token_id('stranger')}", key=key)
        session.ask(f"usage of member as {name}", f"GET /api/tokens/{token_id('member')}/usage", key=key)
    session.ask("usage, head", "HEAD /api/usage", key=ADMIN)
    session.ask("metrics as admin", "GET /metrics", key=ADMIN)
