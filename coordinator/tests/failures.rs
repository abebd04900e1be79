//! What goes wrong is told apart: by words for people, by exit codes for scripts.

use crate::fixtures::*;
use crate::stub::*;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;

fn refusal(status: &'static str, problem: &tradewind_protocol::api::Problem) -> Reply {
    Reply::Whole { status, content_type: "application/problem+json", body: json(problem) }
}

#[test]
fn a_problem_is_told_in_the_agents_words() {
    for format in ["table", "json", "yaml"] {
        let problem = problem(404, "no_plan", "no plan has been made yet: the first follows the first closed step");
        let text = ask(&["plan", "-o", format], refusal("404 Not Found", &problem)).failed(1);
        assert_eq!(text, "error: the agent refused: no plan has been made yet: the first follows the first closed step (404)\n");
    }
    let text = ask(&["scale", "new-york", "--apply"], refusal("500 Oops", &problem(500, "internal", "disk full"))).failed(1);
    assert!(text.contains("disk full (500)"), "{text}");
    let text = ask(&["events", "-f"], refusal("429 Busy", &problem(429, "busy", "too many followers"))).failed(1);
    assert!(text.contains("too many followers (429)"), "{text}");
}

#[test]
fn an_agent_that_is_away_is_said_to_be_away() {
    // Bound and dropped: nobody listens there.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for command in [&["status"][..], &["events", "-f"], &["scale", "denver"]] {
        let text = run(&[command, &["--agent", &format!("http://{address}")]].concat()).failed(3);
        assert!(
            text.starts_with(&format!("error: no agent answers at http://{address}: connection refused\nIs tradewind-agent running")),
            "{text}"
        );
    }
}

#[test]
fn an_agent_that_hangs_is_given_up() {
    // Accepted by the system, answered by nobody.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let text = run(&["status", "--timeout", "0.2", "--agent", &url]).failed(3);
    assert!(text.contains("no answer in time"), "{text}");
}

#[test]
fn an_agent_that_speaks_tls_is_asked_for_by_https() {
    let handshake_failure = [0x15, 3, 3, 0, 2, 2, 40];
    let stub = Stub::accepting(move |mut tcp, _| {
        let _ = tcp.read(&mut [0; 1024]);
        tcp.write_all(&handshake_failure).unwrap();
    });
    let text = run(&["status", "--agent", &format!("http://{}", stub.address)]).failed(4);
    assert!(text.contains("give https:// and --ca FILE"), "{text}");
}

#[test]
fn an_answer_that_is_no_such_answer_is_not_understood() {
    let html = "<html>It works!</html>";
    for format in ["table", "json", "yaml"] {
        for body in [html, "", "{\"region\":", "\u{0}\u{1}"] {
            let text = ask(&["status", "-o", format], Reply::json(body)).failed(4);
            assert!(text.contains("GET /v1/status is not understood"), "{text}");
            assert!(text.contains("This is tradewind 0.1.0"), "{text}");
        }
    }
    // Well-formed, and of another version.
    let text = ask(&["status"], Reply::json("{\"region\":\"new-york\"}")).failed(4);
    assert!(text.contains("missing field `cluster`"), "{text}");
    let other = Reply::Whole { status: "404 Not Found", content_type: "text/html", body: html.to_owned() };
    assert!(ask(&["status"], other).failed(4).contains("404 Not Found"));
    let elsewhere = Reply::Bytes(b"HTTP/1.1 302 Found\r\nlocation: http://example.org/\r\ncontent-length: 0\r\n\r\n".to_vec());
    ask(&["status"], elsewhere).failed(4);
}

#[test]
fn an_answer_that_breaks_off_is_broken() {
    let text = ask(&["status"], Reply::cut(&json(&status()))).failed(3);
    assert!(text.contains("the connection to http://127.0.0.1:"), "{text}");
    ask(&["status", "-o", "json"], Reply::cut(&json(&status()))).failed(3);
}

#[test]
fn what_is_not_http_is_never_a_panic() {
    for bytes in [&b"SSH-2.0-OpenSSH_9.6\r\n"[..], b"", b"HTTP/1.1 999\r\n\r\n", b"\x16\x03\x01\x02\x00\x01", &[0xff; 4096]] {
        let result = ask(&["status"], Reply::Bytes(bytes.to_vec()));
        let code = result.code.unwrap();
        assert!(code == 3 || code == 4, "{result:?}");
        result.failed(code);
    }
}

#[test]
fn a_wrong_command_line_is_2_and_names_the_mistake() {
    for (arguments, named) in [
        (&["frobnicate"][..], "frobnicate"),
        (&["forecasts", "--from", "New York"], "region \"New York\" must be"),
        (&["scale"], "<REGION>"),
        (&["status", "--agent", "localhost:7480"], "must be like http://"),
        (&["status", "--agent", "ftp://localhost"], "must be like http://"),
        (&["status", "--timeout", "0"], "number of seconds"),
        (&["status", "-o", "xml"], "xml"),
        (&["status", "--agent", "https://localhost:1"], "needs the mesh's authority"),
        (&["events", "--since", "yesterday"], "--since"),
        (&["tls", "ca"], "--cluster"),
        (&["tls", "ca", "--cluster", "x", "--days", "0"], "--days"),
        (&["tls", "ca", "--cluster", ""], "must have 1 to 64 bytes"),
        (&["tls", "client", "../../etc/passwd", "--ca-dir", "."], "service"),
        (&["forecasts", "--chart", "--no-chart"], "cannot be used with"),
    ] {
        let result = run(arguments);
        assert_eq!(result.code, Some(2), "{arguments:?}: {result:?}");
        assert!(result.stderr.contains(named) && result.stdout.is_empty(), "{arguments:?}: {result:?}");
    }
}

#[test]
fn help_documents_the_exit_codes() {
    let text = run(&["--help"]).ok();
    for line in ["0  done", "1  the agent refused", "2  the command line", "3  no agent answers", "4  the answer is not understood"] {
        assert!(text.contains(line), "{text}");
    }
}

#[test]
fn completion_is_made_for_the_common_shells() {
    for (shell, mark) in [("bash", "complete -F _tradewind"), ("zsh", "#compdef tradewind"), ("fish", "complete -c tradewind")] {
        let text = run(&["completion", shell]).ok();
        assert!(text.contains(mark) && text.contains("forecasts"), "{shell}");
    }
}
