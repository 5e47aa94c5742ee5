"""A real Prometheus for the tests: scrapes targets and answers queries."""

import json
import time
import urllib.error
import urllib.parse
import urllib.request

from conftest import free_port, peer, wait_tcp


class Prometheus:
    def __init__(self, spawn, folder, targets, *options, rules=()):
        self.port = free_port()
        config = folder / "prometheus.yml"
        targets = [f"127.0.0.1:{target}" for target in (targets if isinstance(targets, (list, tuple)) else [targets])]
        config.write_text(json.dumps({"global": {"scrape_interval": "250ms", "evaluation_interval": "500ms"}, "rule_files": [str(path) for path in rules],
                                      "scrape_configs": [{"job_name": "cb", "static_configs": [{"targets": targets}]}]}))
        spawn(peer("prometheus"), f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb", *options,
              f"--web.listen-address=127.0.0.1:{self.port}", "--log.level=warn", name="prometheus")
        wait_tcp(self.port, seconds=30)
        while not self.ready():
            time.sleep(0.05)

    def ready(self):
        try:
            return urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=10).status == 200
        except urllib.error.HTTPError:
            return False

    def get(self, path, **query):
        """The data of an answer of the API; a refused query fails with Prometheus' own words."""
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        try:
            with urllib.request.urlopen(url, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as refused:
            raise AssertionError(f"{query}: {json.load(refused)['error']}") from None

    def rows(self, text):
        """[(labels, value)]"""
        return [(row["metric"], float(row["value"][1])) if "value" in row else (row["metric"], row["histogram"])
                for row in self.get("query", query=text)["result"]]

    def query(self, text):
        return [row["value"][1] for row in self.get("query", query=text)["result"]]

    def until(self, text, wanted, seconds=30):
        """Asks until the answer is the wanted one (or satisfies it)."""
        end = time.monotonic() + seconds
        while True:
            got = self.query(text)
            if wanted(got) if callable(wanted) else got == wanted:
                return got
            assert time.monotonic() < end, f"{text}: {got}"
            time.sleep(0.1)
