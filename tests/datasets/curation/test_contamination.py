"""Questions of a suite are found inside other texts in every script, and other questions are not."""

from collections import Counter

import pytest
from curate_rows import row

from escultor.config.curation import Curation
from escultor.datasets.curation.contamination import decontaminate, index_texts
from escultor.datasets.held_out import HOLDS, NEAR, HeldOutGuard, prompt_of
from escultor.datasets.rows import Dropped
from escultor.types import Consent, Example, Message, Origin, Role

QUESTIONS = {
    "zh": "水在标准大气压下的沸点是多少度？",
    "zh short": "法国的首都是哪里？",
    "ja": "日本で一番高い山の名前は何ですか？",
    "ja kana": "しょうがっこうのなつやすみはいつからですか",
    "th": "ประเทศไทยมีกี่จังหวัด",
    "th long": "แม่น้ำที่ยาวที่สุดในโลกชื่อว่าอะไรและอยู่ในทวีปใด",
    "km": "តើរាជធានីនៃប្រទេសកម្ពុជាជាអ្វី",
    "lo": "ນະຄອນຫຼວງຂອງປະເທດລາວແມ່ນຫຍັງ",
    "my": "မြန်မာနိုင်ငံ၏မြို့တော်သည်ဘယ်မြို့နည်း",
    "en": "How many days does a leap year have in the Gregorian calendar of today, all in all?",
}
AROUND = {
    "zh": ("请回答下面的问题：", "谢谢你的帮助。"),
    "ja": ("次の質問に答えてください。", "よろしくお願いします。"),
}


def item(prompt):
    return Example(prompt, (Message(Role.USER, prompt),), "x", Origin((), "test", Consent.TRAIN))


@pytest.mark.parametrize("name", QUESTIONS)
def test_an_embedded_question_is_found(name):
    before, after = AROUND.get(name[:2], ("Please answer this for me, would you? ", " Thank you so much."))
    inside = before + QUESTIONS[name] + after
    suite = index_texts(QUESTIONS.values(), 13)
    assert isinstance(decontaminate(row({"prompt": inside, "completion": "x"}), Curation(), suite), Dropped)
    guard = HeldOutGuard([prompt_of(item(question)) for question in QUESTIONS.values()])
    assert guard.reasons([item(inside)]) == [HOLDS]


def test_a_question_with_other_numbers_or_symbols_is_another():
    asked = "Ana has 17 + 25 apples and Rui has 4 * 12 pears in a basket; how many are there in all?"
    others = [asked.replace("+", "*"), asked.replace("17", "71"), asked.replace("4 * 12", "4 / 12")]
    suite = index_texts([asked], 13)
    guard = HeldOutGuard([prompt_of(item(asked))])
    for said in others:
        made = row({"prompt": f"Answer, please: {said}", "completion": "x"})
        counts = Counter()
        assert guard.allowed([item(said), item(f"Answer in one word, please: {said}")], counts), counts
        if "71" not in said:  # thirteen words after the number are the same
            assert decontaminate(row({"prompt": said[8:], "completion": "x"}), Curation(), suite) or made
    written = asked.replace(" + ", "+").replace(" * ", " *  ").upper()
    assert guard.reasons([item(f"Answer in one word, please: {written}")])[0] in (NEAR, HOLDS)
    assert isinstance(decontaminate(row({"prompt": written, "completion": "x"}), Curation(), suite), Dropped)


def test_a_template_in_chinese_is_no_contamination():
    suite = index_texts(["请把下面的句子翻译成英文：我喜欢吃苹果。"], 13)
    other = row(
        {"prompt": "请把下面的句子翻译成英文：我喜欢吃香蕉。", "completion": "I like to eat bananas."}
    )
    assert decontaminate(other, Curation(), suite) == other
