"""Made-up private data with right check digits, as people write it: for the benchmark of recognisers."""

from __future__ import annotations

import random
import string
from collections.abc import Callable
from datetime import date, timedelta
from uuid import UUID

import phonenumbers
from stdnum.br import cnpj, cpf
from stdnum.cn import ric
from stdnum.de import idnr
from stdnum.es import dni, nie
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.jp import in_ as my_number
from stdnum.luhn import calc_check_digit as luhn_digit
from stdnum.verhoeff import calc_check_digit as verhoeff_digit

from escultor.datasets.recognisers.documents import is_pis

Draw = random.Random
Maker = Callable[[Draw], str]


def digits(draw: Draw, count: int, first: str = string.digits) -> str:
    """A row of digits, the first one of some."""
    return draw.choice(first) + "".join(draw.choices(string.digits, k=count - 1))


def grouped(text: str, *sizes: int, by: str = " ") -> str:
    """A text in groups of these sizes."""
    ends = [sum(sizes[: i + 1]) for i in range(len(sizes))]
    return by.join(text[end - size : end] for end, size in zip(ends, sizes, strict=True))


def until(draw: Draw, make: Maker, is_valid: Callable[[str], bool]) -> str:
    """The first text made that is valid."""
    while not is_valid(text := make(draw)):
        pass
    return text


def _cpf(draw: Draw) -> str:
    body = digits(draw, 9)
    text = until(draw, lambda d: body + digits(d, 2), cpf.is_valid)
    return draw.choice((text, f"{grouped(text, 3, 3, 3, by='.')}-{text[9:]}"))


def _cnpj(draw: Draw, characters: str) -> str:
    body = "".join(draw.choices(characters, k=8)) + "0001"
    text = until(draw, lambda d: body + digits(d, 2), cnpj.is_valid)
    form = f"{text[:2]}.{text[2:5]}.{text[5:8]}/{text[8:12]}-{text[12:]}"
    return draw.choice((text, form))


def _pis(draw: Draw) -> str:
    text = until(draw, lambda d: digits(d, 11, "12"), is_pis)
    return draw.choice((text, f"{text[:3]}.{text[3:8]}.{text[8:10]}-{text[10]}"))


def _rg(draw: Draw) -> str:
    text = digits(draw, 8, "123456789") + draw.choice("0123456789X")
    return draw.choice((f"{text[:2]}.{text[2:5]}.{text[5:8]}-{text[8]}", text))


def _cep(draw: Draw) -> str:
    text = digits(draw, 8)
    return draw.choice((f"{text[:5]}-{text[5:]}", f"{text[:2]}.{text[2:5]}-{text[5:]}"))


def _nino(draw: Draw) -> str:
    text = draw.choice(("AB", "JK", "PX", "SC", "HL")) + digits(draw, 6) + draw.choice("ABCD")
    return draw.choice((text, grouped(text, 2, 2, 2, 2, 1)))


def _nir(draw: Draw) -> str:
    born = f"{draw.choice('12')}{digits(draw, 2)}{draw.randrange(1, 13):02}"
    body = f"{born}{draw.randrange(1, 96):02}{digits(draw, 6)}"
    text = body + nir.calc_check_digits(body)
    return draw.choice((text, grouped(text, 1, 2, 2, 2, 3, 3, 2)))


def _luhn(draw: Draw, count: int) -> str:
    body = digits(draw, count - 1, "345678")
    return body + luhn_digit(body)


def _resident(draw: Draw) -> str:
    born = date(1940, 1, 1) + timedelta(days=draw.randrange(25_000))
    body = f"{draw.choice(('110101', '310104', '440106', '510107'))}{born:%Y%m%d}{digits(draw, 3)}"
    return body + ric.calc_check_digit(body + "0")


def _aadhaar(draw: Draw) -> str:
    body = digits(draw, 11, "23456789")
    return draw.choice((str, lambda text: grouped(text, 4, 4, 4)))(body + verhoeff_digit(body))


def _dni(draw: Draw) -> str:
    body = digits(draw, 8)
    if draw.random() < 0.3:
        body = draw.choice("XYZ") + digits(draw, 7)
        return body + nie.calc_check_digit(body)
    return draw.choice(("", "-")).join((body, dni.calc_check_digit(body)))


def phone(country: str) -> Maker:
    """Numbers of a country in its national form, or with its country code."""
    plan = phonenumbers.PhoneMetadata.metadata_for_region(country)
    examples = [plan.mobile.example_number, plan.fixed_line.example_number]

    def make(draw: Draw) -> str:
        while True:
            known = draw.choice(examples)
            text = known[:3] + digits(draw, len(known) - 3)
            number = phonenumbers.parse(text, country)
            if phonenumbers.is_valid_number(number):
                form = phonenumbers.PhoneNumberFormat
                return phonenumbers.format_number(
                    number, draw.choice((form.NATIONAL, form.INTERNATIONAL, form.E164))
                )

    return make


def _phrase(draw: Draw, *forms: str) -> str:
    """One of these forms, with a number in it."""
    return draw.choice(forms).format(draw.randrange(1, 999))


def _email(draw: Draw) -> str:
    who = _phrase(draw, "ana{}", "joão.silva{}", "li_wei{}", "m-garcia{}", "o.neill+x{}")
    return f"{who}@{_phrase(draw, 'mail{}.com', 'empresa{}.com.br', 'uni-köln{}.de', 'correo{}.org')}"


def _foreign_email(draw: Draw) -> str:
    forms = ("иван{}@пример.рф", "用户{}@例子.公司", "उपयोगकर्ता{}@उदाहरण.भारत", "χρήστης{}@παράδειγμα.ελ")
    return _phrase(draw, *forms)


def _card(draw: Draw) -> str:
    body = "4" + digits(draw, 14)
    return grouped(body + luhn_digit(body), 4, 4, 4, 4, by=draw.choice(("", " ", "-")))


def _pan(draw: Draw) -> str:
    letters = draw.choices(string.ascii_uppercase, k=5)
    return f"{''.join(letters[:3])}P{letters[3]}{digits(draw, 4, '123456789')}{letters[4]}"


def _ssn(draw: Draw) -> str:
    return f"{draw.randrange(1, 665):03}-{draw.randrange(1, 100):02}-{draw.randrange(1, 10000):04}"


def _tax_id(draw: Draw) -> str:
    """Ten digits of which one occurs twice and one not at all, and a check digit to be found."""
    chosen = draw.sample(string.digits, 9)
    body = [*chosen, draw.choice(chosen)]
    draw.shuffle(body)
    return "".join(body) + draw.choice(string.digits)


def _free_call(draw: Draw) -> str:
    text = digits(draw, 7)
    return draw.choice((f"0800 {text[:3]} {text[3:]}", f"0800-{text[:3]}-{text[3:]}"))


def _street(draw: Draw) -> str:
    name = draw.choice(("das Flores", "Augusta", "Sete de Setembro", "Paulista", "São João"))
    return draw.choice(("Rua {}, {}", "Av. {}, {}", "Avenida {}, nº {}")).format(
        name, draw.randrange(1, 3000)
    )


def _secret(draw: Draw) -> str:
    return "aB3" + "".join(draw.choices(string.ascii_letters + string.digits, k=draw.choice((37, 45, 61))))


def _ip(draw: Draw) -> str:
    return f"{draw.randrange(20, 100)}.{draw.randrange(256)}.{draw.randrange(256)}.{draw.randrange(1, 255)}"


def _nhs(draw: Draw) -> str:
    return grouped(until(draw, lambda d: digits(d, 10, "4567"), nhs.is_valid), 3, 3, 4)


# By kind: how it is made, and what is written around it. Bare numbers stand beside a word, as the rules say.
KINDS: dict[str, tuple[Maker, tuple[str, ...]]] = {
    "cpf": (_cpf, ("Meu CPF é {}.", "O cliente de cpf {} pediu a nota.", "Cadastro: {} (titular)")),
    "cnpj": (lambda d: _cnpj(d, string.digits), ("CNPJ {}", "A empresa {} emitiu a nota.")),
    "cnpj in letters": (
        lambda d: _cnpj(d, string.digits + string.ascii_uppercase),
        ("CNPJ: {}", "O novo cnpj da loja é {}."),
    ),
    "pis": (_pis, ("PIS/PASEP {}", "Meu NIS é {}, pode conferir?")),
    "rg": (_rg, ("RG {}", "carteira de identidade nº {}", "Meu rg: {}")),
    "cep": (_cep, ("CEP {}", "Moro na rua das Flores, 12, bairro Centro, {}.", "o cep é {}")),
    "pix": (lambda d: str(UUID(int=d.getrandbits(128), version=4)), ("Minha chave pix: {}", "PIX {}")),
    "0800": (_free_call, ("Ligue {}.", "Atendimento: {}")),
    "ssn": (_ssn, ("My SSN is {}.", "Applicant {} was approved.")),
    "nino": (_nino, ("National Insurance number {}", "Employee {} started in May.")),
    "nhs": (_nhs, ("NHS number {}", "Patient {}")),
    "nir": (_nir, ("Numéro de sécurité sociale : {}", "NIR {}")),
    "siret": (lambda d: _luhn(d, 14), ("SIRET {}", "Siret : {}")),
    "steuer-id": (
        lambda d: grouped(until(d, _tax_id, idnr.is_valid), 2, 3, 3, 3),
        ("Meine Steuer-ID ist {}.", "IdNr. {}"),
    ),
    "my number": (
        lambda d: until(d, lambda e: digits(e, 12), my_number.is_valid),
        ("マイナンバーは{}です。", "My Number: {}"),
    ),
    "resident id": (_resident, ("身份证号{}", "我的身份证是{}，请核对。")),
    "aadhaar": (_aadhaar, ("Aadhaar {}", "मेरा आधार {} है")),
    "pan": (_pan, ("PAN {}", "Taxpayer {} filed late.")),
    "dni": (_dni, ("DNI {}", "El titular con documento {} firmó.")),
    "email": (_email, ("Write to {}.", "Fale com {}, por favor.")),
    "email in other scripts": (_foreign_email, ("Mail: {} ", "Escreva para {} hoje.")),
    "card": (_card, ("Card {}", "Cartão {} recusado.")),
    "ip": (_ip, ("The host {} is down.", "from {} at noon")),
    "secret": (_secret, ("token {}", "api_key = '{}'")),
    "address": (_street, ("Moro na {}.", "Entregar em {}")),
}
_TELEPHONES = {
    "US": ("Call me at {}.", "phone: {}"),
    "BR": ("Meu telefone é {}.", "Chama no zap: {}"),
    "GB": ("Ring me on {} please, phone is best.", "Tel {}"),
    "FR": ("Appelez-moi au {}.", "Tél. {}"),
    "DE": ("Telefon: {}", "Ruf mich an: {}"),
    "JP": ("電話は{}です。", "電話番号 {}"),
    "CN": ("我的电话是{}。", "手机号{}"),
    "IN": ("फोन {}", "Mobile {}"),
    "ES": ("Mi teléfono es {}.", "Móvil {}"),
}
KINDS |= {f"phone {country}": (phone(country), said) for country, said in _TELEPHONES.items()}
