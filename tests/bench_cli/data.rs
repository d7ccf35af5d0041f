//! Data sets whose requests depend on each other: conversations, and rounds of a trace.

use serde_json::Value;

use super::mock::{Mock, Timing};
use super::{File, pacer, text};

/// The token ids of each request that a mock has seen, in order of arrival.
fn prompts(mock: &Mock) -> Vec<Vec<u64>> {
    let seen = mock.seen.lock().unwrap();
    let ids = |body: &String| -> Vec<u64> {
        let body: Value = serde_json::from_str(body).expect("JSON");
        body["input_ids"].as_array().expect("ids").iter().filter_map(Value::as_u64).collect()
    };
    seen.bodies.iter().map(ids).collect()
}

fn conversations(mock: &Mock, behaviour: &str, more: &str, file: &File) -> std::process::Output {
    let words = format!(
        "bench-serving --base-url {} --dataset-name generated-shared-prefix --gsp-num-groups 2 \
         --gsp-prompts-per-group 2 --gsp-num-turns 3 --gsp-system-prompt-len 6 \
         --gsp-question-len 2 --gsp-output-len 4 --gsp-fast-prepare --warmup-requests 0 \
         --output-file {} --disable-tqdm {more}",
        mock.url(behaviour),
        file.0.display()
    );
    pacer(&words).output().unwrap()
}

#[test]
fn each_turn_brings_all_that_was_said() {
    let mock = Mock::start(Timing::default());
    let file = File::new("turns.jsonl");
    let out = conversations(&mock, "", "--max-concurrency 2", &file);
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    let row = &file.rows()[0];
    assert_eq!((&row["completed"], &row["total_output_tokens"]), (&12.into(), &48.into()));
    // 8, then 4 of the answer and 2 of the question more, twice.
    assert_eq!(row["total_input_tokens"], 4 * (8 + 14 + 20));
    assert_eq!(row["max_concurrent_requests"], 2, "a conversation has one place");
    let prompts = prompts(&mock);
    let of = |len: usize| prompts.iter().filter(move |p| p.len() == len);
    assert_eq!((of(8).count(), of(14).count(), of(20).count()), (4, 4, 4));
    for last in of(20) {
        let second = of(14).find(|p| last.starts_with(p)).expect("the turn before");
        assert_eq!(last[14..18], [0, 1, 2, 3], "the mock's answer");
        assert!(of(8).any(|p| second.starts_with(p) && second[8..12] == [0, 1, 2, 3]));
    }
}

#[test]
fn a_turn_that_fails_ends_its_conversation() {
    let mock = Mock::start(Timing::default());
    let file = File::new("turns-failed.jsonl");
    let out = conversations(&mock, "s500", "--max-concurrency 2", &file);
    assert_eq!(out.status.code(), Some(1), "{}", text(&out));
    let failed = &file.rows()[0]["failed_by_reason"];
    assert_eq!((&failed["status_500"], &failed["cancelled"]), (&4.into(), &8.into()));
    assert_eq!(mock.seen.lock().unwrap().requests.len(), 4);
    let out = conversations(&mock, "", "--backend vllm", &file);
    assert_eq!(out.status.code(), Some(2), "{}", text(&out));
}

#[test]
fn rounds_of_a_published_trace() {
    let mock = Mock::start(Timing::default());
    let (file, folder) = (File::new("rounds.jsonl"), File::new("traces"));
    std::fs::create_dir_all(&folder.0).unwrap();
    let line = r#"{"timestamp":0,"hash_ids":[3],"input_length":10,"output_length":4}"#;
    std::fs::write(folder.0.join("toolagent_trace.jsonl"), format!("{line}\n")).unwrap();
    let words = |workload: &str| {
        format!(
            "bench-serving --base-url {} --dataset-name mooncake --dataset-path {} \
             --mooncake-workload {workload} --mooncake-num-rounds 3 --warmup-requests 0 \
             --output-file {} --disable-tqdm",
            mock.url(""),
            folder.0.display(),
            file.0.display()
        )
    };
    let out = pacer(&words("toolagent")).output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{}", text(&out));
    assert_eq!(file.rows()[0]["completed"], 3);
    let mut prompts = prompts(&mock);
    prompts.sort_by_key(Vec::len);
    let lens: Vec<usize> = prompts.iter().map(Vec::len).collect();
    assert_eq!(lens, [10, 46, 82]);
    assert!(prompts[2].starts_with(&prompts[1]) && prompts[1].starts_with(&prompts[0]));
    let out = pacer(&words("conversation")).output().unwrap();
    assert!(text(&out).contains("conversation_trace.jsonl"), "{}", text(&out));
    let _ = std::fs::remove_dir_all(&folder.0);
}
