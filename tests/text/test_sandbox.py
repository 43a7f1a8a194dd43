"""A chat template that loops, or makes a text without end, is an error, and leaves nothing running."""

import threading
import time

import pytest

from escultor.errors import ModelError
from escultor.text import sandbox
from escultor.text.sandbox import BoundedTemplate

NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}{% set c = a %}{% endfor %}{% endfor %}"
DOUBLING = "{% set n = namespace(x='ab') %}{% for i in range(40) %}{% set n.x = %s %}{% endfor %}{{ n.x }}"
TOO_LARGE = [
    "{{ 'a' * 10**9 }}",
    "{{ ([1] * 10**9) | length }}",
    "{{ 10 ** (10 ** 9) }}",
    "{{ 'a'.ljust(10**9) }}",
    "{{ 'a' | center(10**9) }}",
    "{{ 'a\n' | indent(10**9) }}",
    "{{ '%1000000000d' % 1 }}",
    "{{ '%*d' % (10**9, 1) }}",
    "{{ '{:1000000000}'.format(1) }}",
    "{{ '%1000000000d' | format(1) }}",
    "{% set a = 'a' * 9999 %}{{ a.replace('a', a) }}",
    "{% set a = 'a' * 9999 %}{{ a | replace('a', a) }}",
    "{% set a = 'a' * 9999 %}{{ a.join(range(9999) | list) }}",
    DOUBLING.replace("%s", "n.x + n.x"),
    DOUBLING.replace("%s", "n.x ~ n.x"),
    DOUBLING.replace("%s", "[n.x, n.x] | join"),
    "{% for a in range(99999) %}{{ '0123456789' * 99 }}{% endfor %}",
]


@pytest.mark.parametrize("source", TOO_LARGE)
def test_a_template_that_makes_a_text_without_end_is_refused_before_it_does(source):
    with pytest.raises(ModelError, match="without end"):
        BoundedTemplate(source).render()


def test_a_template_that_loops_is_ended_and_its_thread_goes_on(monkeypatch):
    monkeypatch.setattr(sandbox, "LIMIT_S", 0.3)
    before = threading.active_count()
    with pytest.raises(ModelError, match="may never end"):
        BoundedTemplate(NESTED).render()
    assert sum(range(1_000_000)) > 0  # nothing arrives later
    assert BoundedTemplate("{{ 'a' ~ 1 }}").render() == "a1"
    assert threading.active_count() <= before + 1
    end = time.monotonic() + 30
    while sandbox._clock._thread is not None and time.monotonic() < end:
        time.sleep(0.1)
    assert sandbox._clock._thread is None


def test_what_templates_of_public_models_do_stays_as_it_is():
    source = (
        "{% set n = namespace(x='') %}{% for m in messages %}{% set n.x = n.x + '<' ~ m.role + '>' %}"
        "{{ ('%s: %s' % (m.role, m.content)) | trim | replace('a', 'b') }}{{ m.content.split('*')[0] }}"
        "{{ '{} {}'.format(m.role, 2 * 3) }}{{ ['x', 'y'] | join(', ') }}{{ 'z' | indent(4, true) }}"
        "{% endfor %}{{ n.x }}{{ {'k': 1} | tojson(indent=2) }}{{ strftime_now('%Y')[:2] }}"
    )
    text = BoundedTemplate(source).render(messages=[{"role": "user", "content": "a 100000000 * %"}])
    assert text == 'user: b 100000000 * %a 100000000 user 6x, y    z<user>{\n  "k": 1\n}20'
