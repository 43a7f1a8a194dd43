"""Private data of each country is found in its usual forms, and what only looks like it stays."""

import pytest

from escultor.config.curation import Curation
from escultor.datasets.personal_data import private, redacted
from escultor.datasets.rows import CurationRow, parse_row

FOUND = {
    "cpf": [
        "meu CPF é 529.982.247-25",
        "cadastro 529.982.247-25 ok",
        "cpf: 52998224725",
        "número 52998224725",
    ],
    "cnpj": [
        "CNPJ 11.222.333/0001-81",
        "a empresa 11222333000181",
        "o novo CNPJ é 12.ABC.345/01DE-35",
        "cnpj 12ABC34501DE35",
    ],
    "pis": ["PIS 120.56874.10-7", "meu NIS é 12056874107"],
    "rg": ["RG 12.345.678-9", "carteira de identidade 123456789", "meu rg é 12.345.678-X"],
    "pix": ["minha chave pix: 123e4567-e89b-42d3-a456-426614174000"],
    "address": [
        "CEP 01310-100",
        "Moro na Rua das Flores, 123",
        "Av. Paulista, 1000",
        "rua Augusta, nº 15",
        "〒100-0001",
        "12 Rue de Rivoli, 75001 Paris",
        "123 Main Street, Springfield, IL 62704",
        "London SW1A 1AA",
        "Lange Straße 12, 10115 Berlin",
        "Hauptstraße 5",
        "Calle Mayor, 12",
    ],
    "ssn": ["SSN 536-90-4399", "he is 536-90-4399 there", "social security number 536904399"],
    "nino": ["NI number AB 12 34 56 C", "employee AB123456C"],
    "nhs": ["NHS number 943 476 5919"],
    "nir": ["numéro de sécurité sociale 2 95 10 99 126 111 93", "carte 295109912611193"],
    "siret": ["SIRET 732 829 320 00074", "siret 73282932000074"],
    "steuer-id": ["Steuer-ID 36 574 261 809", "idnr 36574261809"],
    "my-number": ["マイナンバーは123456789018です", "my number 1234 5678 9018"],
    "resident-id": ["身份证号11010519491231002X。", "我的身份证是11010519491231002X谢谢"],
    "aadhaar": ["aadhaar 2341 2341 2346", "मेरा आधार 234123412346 है"],
    "pan": ["taxpayer ACUPA7085R", "PAN AAPPV8261K"],
    "dni": ["DNI 54362315K", "el titular 54362315-K", "NIE X-2482300-W"],
    "phone": [
        "ligue (11) 98765-4321",
        "11 98765-4321",
        "(21) 3456-7890",
        "zap 11987654321",
        "0800 123 4567",
        "meu celular 98765-4321",
        "01 42 68 53 00",
        "tel 020 7946 0958",
        "07911 123456",
        "0151 12345678",
        "(030) 123456",
        "090-1234-5678",
        "03-1234-5678",
        "电话13800138000",
        "138 0013 8000",
        "010-62345678",
        "फोन 98765 43210",
        "móvil 612 345 678",
        "91 123 45 67 de Madrid? tel",
        "我的电话是+8613800138000谢谢",
        "ligue para ٠٨٠٠ ١٢٣ ٤٥٦٧",
        "（11）98765－4321",
    ],
    "email": [
        "用户@例子.公司",
        "пишите иван@пример.рф сегодня",
        "请发邮件到ana@example.com谢谢",
        "उपयोगकर्ता@उदाहरण.भारत",
        "joão.silva@correio.com.br",
    ],
}
FALSE_FRIENDS = [
    "x = +1.23456789 and y = -0.00012345678",
    "at +40.712776, -74.005974 and 51.5074° N, 0.1278° W; -23.550520, -46.633308",
    "on 2024-05-17, 17.05.2024, 05/17/2024 and 20240517; em 17/05/2024 às 10:30:59",
    "version 5.15.0.91 of the kernel, v1.2.3.4, versão 10.0.19045.1, Chrome/120.0.6099.109, torch==2.13.0.1",
    "libfoo-1.22.33.44.tar.gz and foo@1.22.33.44",
    "css-1q2w3e4r-MuiButtonBase-root-MuiButton-containedPrimary sk-toggleable__content sk-estimator-doc-link",
    "TheBloke/recent-models-64f9a55bb3115b4f513ec026 and CohereForAI/c4ai-command-r-v01-4bit-AWQ",
    "nvidia_cublas_cu12-12.4.5.8-py3-none-manylinux2014_x86_64.whl torchvision-0.28.0-cp311-Linux_x86_64",
    "ISBN 978-3-16-148410-0, ISBN 0-306-40615-2, DOI 10.1000/182",
    "id 123e4567-e89b-12d3-a456-426614174000 and 3f786850e387550fdab836ed7e6dc881de23001b",
    "pp. 1391-1417 of volume 35, 2019-2020, 10000-20000; 612 345 678 people and 1 234 567 890 bytes",
    "MAX = 0x7FFFFFFF, 2147483647, 4294967296, 1609459200, 1609459200000, 1e-10, 3.14159265358979",
    "00 01 02 03 04 05 06 07, 01 02 03 04 05, [1000, 2000, 3000], 1024x768, 192.168.0.1:8080",
    "x@w.T, q@k.transpose(1, 2), foo@2x.png, @decorator, user@localhost",
    "The 0800 hours briefing, room 0300, 12-hour shifts, section 4.3.2.1",
    "R. J. Hanson, 1995, and Phil. Trans. R. Soc. Lond. A, 1999",
    "order 1234567, item AB-1234567, page 98765-4321, zip 12345-678",
]


@pytest.mark.parametrize(("name", "said"), [(k, said) for k, values in FOUND.items() for said in values])
def test_each_form_is_masked_under_its_name(name, said):
    assert f"[{name.upper()}]" in redacted(said), redacted(said)


@pytest.mark.parametrize("said", FALSE_FRIENDS)
def test_false_friends_stay(said):
    assert redacted(said) == said


def test_only_the_chosen_countries_are_looked_for():
    said = "SSN 536-90-4399, CPF 529.982.247-25, DNI 54362315K, ana@example.com"
    row = parse_row("document", {"text": said}, "test", 1)
    settings = Curation.model_validate({"private": {"countries": ["BR"]}})
    found = private(row, settings, None)
    assert isinstance(found, CurationRow)
    assert found.item.text == "SSN 536-90-4399, CPF [CPF], DNI 54362315K, [EMAIL]"
    assert found.notes == ("email redacted", "document redacted")
    nowhere = Curation.model_validate({"private": {"countries": []}})
    assert "529.982" in private(row, nowhere, None).item.text
