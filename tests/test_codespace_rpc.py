from codespace_kernels import codespace_rpc


def test_bytes_are_those_that_gh_sends():
    request = codespace_rpc.NotifyRequest(ClientId="gh", ClientActivities=["connected"])
    assert request.SerializeToString() == b"\x0a\x02gh\x12\x09connected"


def test_false_is_told_from_absent_for_incremental():
    assert codespace_rpc.RebuildRequest(Incremental=False).SerializeToString() == b"\x08\x00"
    assert codespace_rpc.RebuildRequest().SerializeToString() == b""


def test_ssh_answer_round_trip():
    answer = codespace_rpc.StartSshResponse(Result=True, ServerPort="2222", User="codespace")
    again = codespace_rpc.StartSshResponse.FromString(answer.SerializeToString())
    assert (again.Result, again.ServerPort, again.User, again.Message) == (True, "2222", "codespace", "")
