"""Plants wrong includes in a small tree of its own and expects check_includes.py to name each.   check_includes_test.py"""
import os
import sys
import tempfile

import check_includes

FILES = {
    "base/error.h": "",
    "coordinator/merge.h": "",
    "worker/loop.h": "",
    "models/family.h": "",
    "comm/messages.h": "",
    "comm/transport/zmq_endpoint.h": "",
    "optim/outer.h": "",
    "optim/inner.h": "",
    "monitoring/exporter.h": "",
}
# file, its text, and whether the table refuses it
CASES = [
    ("worker/a.cpp", '#include "base/error.h"\n#include "comm/transport/zmq_endpoint.h"\n#include <vector>\n', False),
    ("worker/a.cpp", '#include "coordinator/merge.h"\n', True),
    ("coordinator/a.cpp", '#include "worker/loop.h"\n', True),
    ("coordinator/a.cpp", '#include "optim/outer.h"\n', False),
    ("coordinator/a.cpp", '#include "optim/inner.h"\n', True),
    ("coordinator/a.cpp", "#include <ATen/ATen.h>\n", True),
    ("models/a.cpp", '#include "optim/outer.h"\n', True),
    ("optim/a.cpp", '#include "models/family.h"\n', True),
    ("optim/inner/a.cpp", "#include <ATen/core/Tensor.h>\n", False),
    ("data/a.cpp", '#include "comm/transport/zmq_endpoint.h"\n', True),
    ("base/a.cpp", '#include "comm/messages.h"\n', True),
    ("base/a.cpp", "#include <sys/stat.h>\n#include <zmq.hpp>\n", True),
    ("monitoring/a.cpp", "#include <prometheus/exposer.h>\n", True),
    ("monitoring/exporter.cpp", "#include <prometheus/exposer.h>\n", False),
    ("base/a.cpp", "#include <boost/asio.hpp>\n", True),
    ("base/a.cpp", '#include "error.h"\n', True),
    ("base/a.cpp", "int f() { return std::getenv(\"HOME\") != nullptr; }\n", True),
    ("base/a.cpp", "// never calls getenv\nconst char* t = \"getenv\";\n", False),
    ("launch/a.cpp", 'const char* t = R"(\n#include <gtest/gtest.h>\n)";\n', False),
    ("launch/a.cpp", 'const char* t = R"(\n)";\n#include <gtest/gtest.h>\n', True),
    ("launch/a.cpp", "int f() { return std::getenv(\"HOME\") != nullptr; }\n", False),
    ("worker/a.cpp", "std::thread t;\n", True),
    ("worker/a.cpp", "int n = std::this_thread::get_id() == std::this_thread::get_id();\n", False),
    ("worker/protocol/a.cpp", '#include "worker/loop.h"\n', True),
    ("comm/a.cpp", "#include <mpi.h>\n", True),
    ("tests/worker/a.cpp", '#include "coordinator/merge.h"\n#include <gtest/gtest.h>\n', False),
]


def write(root, path, text):
    path = os.path.join(root, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def main():
    with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "include_rules.txt"), encoding="utf-8") as file:
        rules = check_includes.Rules(file.read())
    wrong = 0
    for path, text, refused in CASES:
        with tempfile.TemporaryDirectory() as root:
            for name, content in {**FILES, path: text}.items():
                write(root, name, content)
            faults, _, _ = check_includes.check(root, rules)
            if bool(faults) != refused:
                wrong += 1
                print(f"{path}: {text!r}: {'not refused' if refused else faults}")
    print(f"{len(CASES)} planted, {wrong} judged wrongly")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
