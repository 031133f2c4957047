"""Hosts on one machine: a name and a network of their own each, joined by a cable, on one disk."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

REPO = Path(__file__).resolve().parents[2]
SUBNET = "10.213.77"


def require_names() -> None:
    """Skip where a process cannot be given another host name."""
    if shutil.which("unshare") is None:
        pytest.skip("no command `unshare`")
    asked = subprocess.run(["unshare", "--uts", "hostname", "other"], capture_output=True, text=True)
    if asked.returncode:
        pytest.skip(f"host names of their own are not allowed here: {asked.stderr.strip()}")


def named(name: str, *command: str) -> list[str]:
    """Return a command that runs in this network under another host name."""
    return ["unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', name, *command]


def spawn(command: list[str], **options: Any) -> subprocess.Popen[str]:
    """Start a command that finds the tests' encoders."""
    env = {**os.environ, "PYTHONPATH": str(REPO), **options.pop("env", {})}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **options}
    return subprocess.Popen(command, text=True, env=env, **pipes)


class Hosts:
    """Two hosts and the cable between them; everything that runs on them ends with `end`."""

    def __init__(self) -> None:
        self.names = tuple(f"host{number}-{os.getpid()}" for number in (1, 2))
        self.cable = tuple(f"ts{number}x{os.getpid()}" for number in (1, 2))
        self.processes: list[subprocess.Popen[str]] = []

    def begin(self) -> None:
        """Join them; skip where that is not allowed."""
        if shutil.which("ip") is None:
            pytest.skip("no command `ip`")
        require_names()
        try:
            for name in self.names:
                self._ip("netns", "add", name)
            self._ip("link", "add", self.cable[0], "type", "veth", "peer", "name", self.cable[1])
            for number, (name, end) in enumerate(zip(self.names, self.cable, strict=True), 1):
                self._ip("link", "set", end, "netns", name)
                self._ip("-n", name, "addr", "add", f"{SUBNET}.{number}/24", "dev", end)
                self._ip("-n", name, "link", "set", end, "up")
                self._ip("-n", name, "link", "set", "lo", "up")
        except subprocess.CalledProcessError as error:
            self.end()
            pytest.skip(f"network namespaces are not allowed here: {error.stderr.strip()}")

    def address(self, number: int) -> str:
        """Return the address of host 0 or 1."""
        return f"{SUBNET}.{number + 1}"

    def run(self, number: int, *command: str, **options: Any) -> subprocess.Popen[str]:
        """Start a command on host 0 or 1."""
        name = self.names[number]
        process = spawn(["ip", "netns", "exec", name, *named(name, *command)], **options)
        self.processes.append(process)
        return process

    def cut(self) -> None:
        """Pull the cable out."""
        self._ip("-n", self.names[1], "link", "set", self.cable[1], "down")

    def end(self) -> None:
        """Kill what runs there, and take the hosts away."""
        for process in self.processes:
            process.kill()
            process.communicate()
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)  # the cable goes with it
        subprocess.run(["ip", "link", "del", self.cable[0]], capture_output=True)

    @staticmethod
    def _ip(*arguments: str) -> None:
        subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)
