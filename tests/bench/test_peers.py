"""Which other gateways are measured, and that a missing one is told."""

import re
from pathlib import Path

import pytest

from bench import peers
from bench.servers import Place


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: peer.name)
def test_every_package_of_a_peer_has_one_version(peer: peers.Peer) -> None:
    lines = peer.requirements.read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == []
    assert f"{peer.name}=={peer.version}" in lines


def test_a_missing_peer_is_told_with_what_installs_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    assert peers.installed() == []
    assert peers.tell_missing() == [peer.name for peer in peers.PEERS]
    assert "make bench-peers" in capsys.readouterr().err


def test_another_version_than_the_pinned_one_is_not_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(peers, "FOLDER", tmp_path)
    peer = peers.PEERS[0]
    peer.folder.mkdir(parents=True)
    peer.stamp.write_text(peer.requirements.read_text())
    assert peer.is_installed
    peer.stamp.write_text("vllm-router==0.0.1\n")
    assert not peer.is_installed


@pytest.mark.parametrize("peer", peers.PEERS, ids=lambda peer: peer.name)
def test_a_peer_is_started_with_the_key_and_the_upstream(peer: peers.Peer, tmp_path: Path) -> None:
    command = peer.command(Place(tmp_path, tmp_path / "python", 0, 1), "http://127.0.0.1:1", "the-key")
    arguments = list(command.arguments)
    assert arguments[arguments.index("--api-key") + 1] == "the-key"
    assert arguments[arguments.index("--worker-urls") + 1] == "http://127.0.0.1:1"
    assert arguments[arguments.index("--port") + 1] == str(command.port)
