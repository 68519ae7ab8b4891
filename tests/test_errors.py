"""What a user sees of a mistake."""

import pytest

from sdfn_jax.errors import UserError, exit_on_user_error


def test_a_users_mistake_is_a_message_and_status_2(capsys):
    def command():
        raise UserError("films/a.png: cannot be decoded")

    with pytest.raises(SystemExit) as e:
        exit_on_user_error(command)
    assert e.value.code == 2
    captured = capsys.readouterr()
    assert captured.err == "\nerror: films/a.png: cannot be decoded\n"
    assert captured.out == ""


def test_our_own_mistake_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        exit_on_user_error(lambda: 1 / 0)


def test_a_command_that_ends_well_goes_on(capsys):
    exit_on_user_error(lambda: print("done"))
    assert capsys.readouterr() == ("done\n", "")
