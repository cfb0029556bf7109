"""One row, or more, of every shape that is read, by the name of its format."""

Q, A = "Where is the river?", "It is in the valley."
CHAT = [{"role": "user", "content": Q}, {"role": "assistant", "content": A}]
SHAREGPT = [{"from": "human", "value": Q}, {"from": "gpt", "value": A}]
TREE = {
    "message_tree_id": "1",
    "tree_state": "ready_for_export",
    "prompt": {
        "text": Q,
        "role": "prompter",
        "lang": "en",
        "review_result": True,
        "replies": [
            {"text": A, "role": "assistant", "rank": 0, "replies": []},
            {"text": "No.", "role": "assistant", "rank": 1, "replies": []},
        ],
    },
}

ROWS: dict[str, list] = {
    "alpaca": [
        {"instruction": Q, "input": "", "output": A},
        {"instruction": Q, "output": A},
        {"instruction": Q, "input": "The map.", "output": A, "history": [["Hello", "Hi"]], "system": "Be brief."},
        {"instruction": Q, "input": None, "output": A, "history": None},
    ],
    "belle_chat": [
        {"instruction": f"Human:Hello\nAssistant:Hi\nHuman:{Q}\nAssistant:", "input": "", "output": A},
        {"instruction": f"Human: {Q}\n Assistant:\n", "output": A},
    ],
    "dolly": [
        {"instruction": Q, "context": "A map.", "response": A, "category": "open_qa"},
        {"instruction": Q, "context": "", "response": A},
        {"instruction": Q, "response": A},
    ],
    "openassistant": [TREE],
    "messages": [
        {"messages": CHAT},
        {"messages": CHAT, "tools": [{"name": "map"}]},
        {"conversations": SHAREGPT},
        {"id": "a", "conversations": SHAREGPT, "system": "Be brief."},
        {"idx": "0", "conversations": SHAREGPT},
        {"dialog": [{"role": "system", "content": "Be brief."}, *CHAT]},
        {"messages": [CHAT[0], {"role": "assistant", "content": None, "tool_calls": [{"function": {"name": "map"}}]}]},
    ],
    "turns": [{"conversations": [Q, A], "source": "lima"}, {"id": "0", "data": [Q, A, Q, A]}],
    "self_instruct": [
        {"id": "0", "name": "river", "instruction": Q, "instances": [{"input": "", "output": A}]},
        {"motivation_app": "Maps", "instruction": Q, "instances": [{"input": "i", "output": A}] * 2},
    ],
    "flan": [{"inputs": Q, "targets": A, "task_source": "CoT", "task_name": "t", "template_type": "zs"}],
    "prompt_completion": [
        {"prompt": Q, "completion": A + "<|endoftext|>", "task": "t"},
        {"prompt": CHAT[:1], "completion": CHAT[1:]},
    ],
    "input_target": [{"input": Q, "target": A}, [{"input": Q, "target": A}, {"input": Q, "target": A}]],
    "context_target": [{"context": Q, "target": A}],
    "user_assistant": [{"user": Q, "assistant": A}],
    "question_answer": [{"question": Q, "answer": A}],
    "multiple_choice": [
        {"subject": "s", "passage": None, "question": Q, "options": ["(A)x", "(B)y"], "label": "A", "answer": None}
    ],
    "text": [{"text": A}, {"content": A}, {"title": "River", "content": A}, {"text": A, "label": 0, "score": 0.5}],
    "code": [{"code": "x = 1"}, {"content": "x = 1", "max_stars_repo_path": "a.py"}, {"code": "x", "path": "a.py"}],
    "alpaca_ranked": [
        {"instruction": Q, "input": "", "output": [A, "No."]},
        {"instruction": Q, "input": "", "output": [A, "No.", "What?", "Go."], "history": [["Hello", "Hi"]]},
    ],
    "chosen_rejected": [
        {"prompt": Q, "selected": A, "rejected": "No."},
        {"prompt": Q, "chosen": A, "rejected": "No."},
        {"prompt": CHAT[:1], "chosen": CHAT[1:], "rejected": [{"role": "assistant", "content": "No."}]},
        {"chosen": CHAT, "rejected": [CHAT[0], {"role": "assistant", "content": "No."}]},
        {"prompt": Q, "chosen": CHAT, "rejected": [CHAT[0], {"role": "assistant", "content": "No."}]},
        {"conversations": SHAREGPT[:1], "chosen": SHAREGPT[1], "rejected": {"from": "gpt", "value": "No."}},
    ],
    "hh_rlhf": [
        {"chosen": f"\n\nHuman: {Q}\n\nAssistant: {A}", "rejected": f"\n\nHuman: {Q}\n\nAssistant: No."},
        {"prompt": f"\n\nHuman: {Q}\n\nAssistant:", "chosen": f" {A}", "rejected": " No."},
    ],
    "openassistant_ranked": [TREE],
    "rated": [
        {"messages": CHAT, "label": True},
        {"conversations": SHAREGPT, "label": False},
        {"prompt": Q, "completion": A, "label": True},
        {"instruction": Q, "output": A, "label": 0},
    ],
    "prompts": [
        {"prompt": Q},
        {"prompt": CHAT[:1]},
        {"idx": 1, "Skill": "Math", "Difficulty": 1, "Instruction": Q},
        {"question_id": 81, "category": "writing", "turns": [Q, "And the mountain?"]},
        {"question_id": 81, "category": "writing", "turns": [Q, "And the mountain?"], "reference": ["", ""]},
    ],
    "marked_text": [
        {"text": A},
        {"title": "River", "content": A},
        {"content": A},
        {"question": Q, "answer": A},
        {"code": "x = 1"},
        {"user": Q, "assistant": A},
    ],
}
"""every row here has a value that can be read"""
