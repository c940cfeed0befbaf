"""Forms: one spelling in, one spelling out, whatever pieces they arrive in."""

import re
from collections.abc import AsyncIterator

import pytest

from gateway.core.errors import BadRequest
from gateway.core.form_data import MAX_PARTS, MAX_TEXT_BYTES, FormBody, FormParser, read_texts

KIND = "multipart/form-data; boundary=B"
FILE = (
    b'--B\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\nContent-Type: audio/wav\r\n\r\n'
    b"\x00\r\n--\xff\r\n"
)
END = b"--B--\r\n"


def text(name: str, value: bytes, more: bytes = b"") -> bytes:
    return b'--B\r\nContent-Disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (name.encode(), more, value)


class Memory:
    def __init__(self, data: bytes) -> None:
        self.data = data

    async def read(self, start: int, end: int) -> AsyncIterator[bytes]:
        yield self.data[start:end]


async def read(data: bytes, kind: str = KIND, step: int = 1 << 20) -> FormBody:
    parser = FormParser(kind)
    for at in range(0, len(data), step):
        parser.feed(data[at : at + step])
    parts, storage = parser.finish(), Memory(data)
    return FormBody(parts, await read_texts(parts, storage), storage)


async def written(form: FormBody) -> bytes:
    data = b"".join([chunk async for chunk in form])
    assert form.headers["Content-Length"] == str(len(data))
    boundary = form.headers["Content-Type"].partition("boundary=")[2].encode()
    assert boundary in data
    return data.replace(boundary, b"B")


@pytest.mark.parametrize("step", [1, 2, 7, 1 << 20])
@pytest.mark.parametrize("data", [
    text("model", b"m") + FILE, FILE + text("model", b"m"),
    FILE + text("model", b"m", b"\r\nContent-Type: text/plain; charset=UTF-8"),
    FILE + text("model", b"m", b"\r\nContent-Length: 1\r\nContent-Transfer-Encoding: binary\r\nX-Other: y"),
])  # fmt: skip
async def test_the_model_may_stand_before_or_behind_the_file(data: bytes, step: int) -> None:
    form = await read(data + END, step=step)
    assert form.model == "m"
    assert await written(form) == text("model", b"m") + FILE + END
    assert await written(form.with_model("real")) == text("model", b"real") + FILE + END
    assert await written(form) == text("model", b"m") + FILE + END


async def test_texts_are_fields() -> None:
    form = await read(
        text("n", b"2") + text("prompt", "größer".encode()) + text("image[]", b"") + FILE + END + b"epilogue"
    )
    assert (form.model, dict(form.fields)) == (None, {"n": 2, "prompt": "größer", "image[]": ""})
    assert (await written(form.with_model("m"))).startswith(text("model", b"m"))


@pytest.mark.parametrize("name", [b'"\xe4.wav"', b'"a b;c=d.wav"', b"a.wav", b'"a\\\\b.wav"', b'""'])
async def test_names_of_files_are_kept(name: bytes) -> None:
    part = b'--B\r\nContent-Disposition: form-data; name="file"; filename=%s\r\n\r\nx\r\n' % name
    plain = name if name.startswith(b'"') else b'"%s"' % name
    assert await written(await read(part + END)) == part.replace(b"filename=" + name, b"filename=" + plain) + END


AMBIGUOUS = [
    text("model", b"a") + text("model", b"b"), text("Model", b"a"), text("model[]", b"a"), text("_charset_", b"utf-16"),
    text("model", b"a,b"), text("model", b""), text("model", b" a"), text("model", b"a" * 257), text("model", b"\xff"),
    text("model", b"a", b'; filename="x"'), text("model", b"a", b"\r\nContent-Type: text/plain; charset=utf-16"),
    text("model", b"a", b"\r\nContent-Type: application/json"), text("x", b"a", b"\r\nContent-Type: multipart/mixed; boundary=C"),
    text("x", b"a", b"\r\nContent-Transfer-Encoding: base64"), text("x", b"a", b'; name="model"'),
    text("x", b"a", b"; name*=utf-8''model"), text("x", b"a", b"\r\n folded: y"), text("x", b"a", b"\r\nContent-Type: a\x00/b"),
    text("x", b"a", b'\r\nContent-Disposition: form-data; name="model"'), text('x"; name="model', b"a"), text("", b"a"),
    b"--B\r\n\r\nx\r\n", b"--B\r\nContent-Disposition: attachment; name=x\r\n\r\nx\r\n", b"preamble\r\n" + text("x", b"a"),
    b"--B \r\n" + text("x", b"a"), b"--Bx\r\n", text("x", b"a\r\n--Bother"), b"\n" + text("x", b"a"),
    b"--B\r\n" + b"X: y\r\n" * 2000, text("x", b"a" * (MAX_TEXT_BYTES + 1)), text("x", b"a") * (MAX_PARTS + 1),
    b"--B\r\nContent-Disposition : form-data; name=x\r\n\r\nx\r\n", b"--B\nContent-Disposition: form-data; name=x\n\nx\n",
]  # fmt: skip


@pytest.mark.parametrize("data", AMBIGUOUS)
async def test_what_can_be_read_in_two_ways_is_refused(data: bytes) -> None:
    for step in (5, 1 << 21):
        with pytest.raises(BadRequest) as caught:
            await read(data + END, step=step)
        assert caught.value.code in ("invalid_form", "duplicate_key", "invalid_value")


@pytest.mark.parametrize("data", [b"", b"--B", text("x", b"a"), text("x", b"a") + b"--B-"])
async def test_a_form_has_an_end(data: bytes) -> None:
    with pytest.raises(BadRequest):
        await read(data)


@pytest.mark.parametrize("kind", [
    "multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=B; boundary=C",
    "multipart/form-data; boundary=B; charset=utf-16", "multipart/form-data; boundary=" + "b" * 71,
    'multipart/form-data; boundary="B "',
    "multipart/form-data; boundary=\u00e4", "multipart/mixed; boundary=B",
])  # fmt: skip
async def test_the_delimiter_has_one_reading(kind: str) -> None:
    with pytest.raises(BadRequest):
        await read(text("x", b"a") + END, kind)


async def test_a_quoted_delimiter() -> None:
    kind = 'Multipart/Form-Data;boundary="B"'
    assert (await read(text("model", b"m") + END, kind)).model == "m"


async def test_the_new_delimiter_cannot_be_guessed() -> None:
    kinds = {(await read(FILE + END)).headers["Content-Type"] for _ in range(3)}
    assert len(kinds) == 3
    assert all(re.fullmatch(r"multipart/form-data; boundary=[0-9a-f]{48}", kind) for kind in kinds)
