"""Runs one of CPython's own test modules and notes what became of each test, as lines of JSON.

outcomes.py PLAN RECORD: PLAN is JSON (module, resources, without: ids to leave out); RECORD is appended to. What it names
already is not run again, so that a run that hung or crashed in one test goes on behind it. A line is written when a test
begins ({"id"}) and when it ends ({"id", "outcome", "reason"}); {"end": true} closes the record.
"""

import faulthandler
import json
import os
import sys
import traceback
import unittest

del sys.path[0]  # this folder is no part of what the tests may import

from test import support  # noqa: E402

PLAN, RECORD = sys.argv[1:3]
MAIN_PID = os.getpid()
# Of what happens in a test and its subtests, the worst counts.
ORDER = ["pass", "skip", "expected failure", "unexpected success", "fail", "error"]


def note(**entry):
    """Opens the file anew each time: tests count, close and inherit descriptors, so none may stay open."""
    if os.getpid() == MAIN_PID:
        with open(RECORD, "a", encoding="utf-8") as record:
            record.write(json.dumps(entry) + "\n")


class Outcomes(unittest.TestResult):
    """What unittest reports, test by test; set-ups of classes and modules that fail or skip count as tests."""

    current = None

    def startTest(self, test):
        super().startTest(test)
        self.current, self.outcome, self.reason = test.id(), "pass", ""
        note(id=self.current)

    def stopTest(self, test):
        super().stopTest(test)
        note(id=self.current, outcome=self.outcome, reason=self.reason)
        self.current = None

    def met(self, test, outcome, reason):
        if self.current is None:
            note(id=test.id(), outcome=outcome, reason=reason)
        elif ORDER.index(outcome) > ORDER.index(self.outcome):
            self.outcome, self.reason = outcome, reason

    def addError(self, test, err):
        self.met(test, "error", sentence(err))

    def addFailure(self, test, err):
        self.met(test, "fail", sentence(err))

    def addSubTest(self, test, subtest, err):
        if err is not None:
            self.met(test, "fail" if issubclass(err[0], test.failureException) else "error", sentence(err))

    def addSkip(self, test, reason):
        self.met(test, "skip", str(reason).split("\n", 1)[0])

    def addExpectedFailure(self, test, err):
        self.met(test, "expected failure", sentence(err))

    def addUnexpectedSuccess(self, test):
        self.met(test, "unexpected success", "")


def sentence(err):
    """The exception in one line, with the line of the test file that it came through."""
    text = "".join(traceback.format_exception_only(err[0], err[1])).strip().split("\n", 1)[0][:200]
    frames = [frame for frame in traceback.extract_tb(err[2]) if "/test" in frame.filename]
    where = f" ({os.path.basename(frames[-1].filename)}:{frames[-1].lineno})" if frames else ""
    return text + where


def without(suite, left_out):
    """The suite as it is, less some tests."""
    kept = (without(each, left_out) if isinstance(each, unittest.TestSuite) else each for each in suite)
    return type(suite)(
        each for each in kept if isinstance(each, unittest.TestSuite) or each.id() not in left_out
    )


def main():
    with open(PLAN, encoding="utf-8") as plan_file:
        plan = json.load(plan_file)
    left_out = set(plan["without"])
    if os.path.exists(RECORD):
        with open(RECORD, encoding="utf-8") as record:
            left_out.update(json.loads(line).get("id") for line in record)
    faulthandler.enable()  # SIGABRT then says where a test hangs
    support.use_resources = plan["resources"]
    # Nobody else may hold the tests: unittest frees each once it ran, and many look for what is left with the collector.
    without(unittest.defaultTestLoader.loadTestsFromName("test." + plan["module"]), left_out).run(Outcomes())
    note(end=True)


if __name__ == "__main__":
    main()
