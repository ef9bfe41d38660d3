"""The notebook's widget, where ipywidgets is installed."""

from __future__ import annotations

import sys
import types

import pytest
from ui_states import snapshot, summary

from starburst.ui import progress

pytest.importorskip("ipywidgets")


def test_the_widget_shows_state_and_closing_words(capsys):
    from starburst.ui.notebook import NotebookSink

    sink = NotebookSink(monotonic=lambda: 0.0)
    sink.start(snapshot())
    assert (sink._bar.value, sink._bar.max, sink._bar.bar_style) == (4_003, 10_000, "danger")
    sink.note("<b>not markup</b>")
    assert "&lt;b&gt;" in sink._line.value
    sink.close(summary())
    assert "✓ 10,000 tasks" in sink._line.value
    assert sink._bar.layout.display == "none"


def test_it_is_chosen_where_a_kernel_runs(monkeypatch):
    shell = types.SimpleNamespace(kernel=object())
    monkeypatch.setitem(sys.modules, "IPython", types.SimpleNamespace(get_ipython=lambda: shell))
    assert progress.in_notebook()
    shell.kernel = None
    assert not progress.in_notebook()
