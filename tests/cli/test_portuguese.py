"""Brazilian Portuguese is handled as English is, with no setting."""

import random

from cli_rows import jsonl

STORE = ("--store", "store", "--set", "curation.workers=1")
PRODUCTS = ("geladeira", "cafeteira", "impressora", "bicicleta", "mochila", "câmera", "batedeira", "lanterna")
FAULTS = (
    "não liga desde ontem de manhã",
    "chegou com um defeito na tampa de vidro",
    "parou de funcionar depois de uma semana de uso normal",
    "veio com a cor errada e sem o manual de instruções",
    "esquenta demais quando fica ligada por mais de uma hora",
)
ANSWERS = (
    "Sinto muito pelo transtorno. Verifique primeiro se o cabo está bem conectado à tomada; se o problema "
    "da {} continuar, abra um chamado de troca na página do pedido, e a coleta será gratuita.",
    "Pedimos desculpas. Envie uma foto da {} e o número do pedido para o nosso atendimento: em até dois dias "
    "úteis a equipe responde com a etiqueta de devolução e o prazo do reembolso.",
    "Isso costuma acontecer quando o sistema está desatualizado. Abra as configurações da {}, toque em "
    "atualização e aguarde a instalação terminar antes de tentar de novo.",
)
ABOUT_ME = (
    "Meu CPF é 529.982.247-25, moro na Rua das Flores, 123, CEP 01310-100, e o telefone é (11) 98765-4321."
)


def rows():
    draw = random.Random(7)
    asked = [(product, fault) for product in PRODUCTS for fault in FAULTS]
    for number, (product, fault) in enumerate(asked):
        prompt = f"Oi! Comprei uma {product} na loja de vocês e ela {fault}. O que eu faço agora, por favor?"
        yield {"id": f"r{number}", "prompt": prompt, "completion": draw.choice(ANSWERS).format(product)}
    first = next(iter(asked))
    prompt = (
        f"Oi! Comprei uma {first[0]} na loja de vocês e ela {first[1]}. O que eu faço agora, por favor?? Oi"
    )
    yield {"id": "near", "prompt": prompt, "completion": ANSWERS[0].format(first[0])}
    yield {
        "id": "private",
        "prompt": f"Quero trocar o endereço. {ABOUT_ME}",
        "completion": "Pronto, já atualizei.",
    }
    yield {
        "id": "again",
        "prompt": "Repita comigo, sem parar.",
        "completion": "não, não e não, eu já disse " * 12,
    }


def test_a_set_in_portuguese_is_checked_curated_and_kept(cli, tmp_path):
    source = jsonl(tmp_path / "pt.jsonl", *rows())
    assert cli("data", "check", source, *STORE).code == 0
    call = cli("data", "curate", source, "--out", "atendimento", *STORE, "--json")
    assert call.code == 0, call.err
    steps = {step["step"]: step for step in call.data["steps"]}
    assert steps["language"]["removed"] == {}
    assert steps["language"]["notes"].get("language undetermined", 0) <= 3
    assert steps["near"]["removed"]["near duplicate"] >= 1
    assert steps["repetition"]["removed"] == {"words repeated": 1}
    assert steps["private"]["notes"] == {"address redacted": 1, "document redacted": 1, "phone redacted": 1}
    assert steps["quality"]["removed"] == {}
    left = cli("data", "export", "atendimento", "--format", "trl", "--out", "out.jsonl", *STORE)
    assert left.code == 0, left.err
    text = (tmp_path / "out.jsonl").read_text(encoding="utf-8")
    assert all(part not in text for part in ("529.982", "Flores, 123", "01310-100", "98765-4321"))
    assert "[CPF]" in text


def test_what_is_dropped_for_its_language_says_what_would_keep_it(cli, tmp_path):
    source = jsonl(tmp_path / "pt.jsonl", *rows())
    keep = ("--set", "curation.language.keep=[en]", "--set", "curation.steps=[language]")
    call = cli("data", "curate", source, "--out", "x", *STORE, *keep)
    assert "language.keep is en: add pt to keep it" in " ".join((call.out + call.err).split())
