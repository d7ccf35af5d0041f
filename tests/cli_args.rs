//! The command line: what people type, what is understood, and what is refused with which words.

use std::process::{Command, Output};

use argh::{ArgsInfo, FlagInfoKind, FromArgs};
use pacer::commands::COMMANDS;
use pacer::commands::args::{Parsed, parse};
use pacer::commands::bench_one_batch::BenchOneBatch;
use pacer::commands::model_flags::{
    Chunking, DeviceChoice, DtypeChoice, LoadFormat, ModelFlags, SharedFlags,
};
use pacer::commands::values;

fn words(text: &[&str]) -> Vec<String> {
    text.iter().map(|w| w.to_string()).collect()
}

fn bench(text: &[&str]) -> BenchOneBatch {
    match parse::<BenchOneBatch>("bench-one-batch", &words(text)) {
        Ok(Parsed::Args(flags)) => flags,
        other => panic!("{text:?}: {other:?}"),
    }
}

fn refusal(text: &[&str]) -> String {
    let error = parse::<BenchOneBatch>("bench-one-batch", &words(text)).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.message
}

fn model(text: &[&str]) -> pacer::error::Result<ModelFlags> {
    bench(text).model()
}

/// A command with every kind of argument.
#[derive(FromArgs, ArgsInfo, Debug, PartialEq)]
#[argh(help_triggers("--help"))]
/// a command for tests
struct Mixed {
    /// a number (default 1)
    #[argh(option, arg_name = "X", default = "1.0", from_str_fn(low))]
    bias: f64,

    /// texts
    #[argh(option, arg_name = "TEXT")]
    prompt: Vec<String>,

    /// numbers
    #[argh(option, arg_name = "N", from_str_fn(values::whole::<0, 9>))]
    ids: Vec<usize>,

    /// a switch
    #[argh(switch)]
    quiet: bool,

    /// files
    #[argh(positional)]
    files: Vec<String>,
}

fn low(value: &str) -> Result<f64, String> {
    values::real(value, -10.0, 10.0)
}

fn mixed(text: &[&str]) -> Mixed {
    match parse::<Mixed>("mixed", &words(text)) {
        Ok(Parsed::Args(flags)) => flags,
        other => panic!("{text:?}: {other:?}"),
    }
}

#[test]
fn every_way_to_write_a_list() {
    for text in [
        &["--batch-size", "1", "8", "32"][..],
        &["--batch-size", "1,8,32"],
        &["--batch-size=1,8,32"],
        &["--batch-size", "1", "--batch-size", "8", "--batch-size", "32"],
        &["--batch-size=1", "--batch-size", "8", "32"],
        &["--batch-size", "1,", "8,", "32"],
        &["--batch", "1, 8, 32"],
    ] {
        assert_eq!(bench(text).batch_size, [1, 8, 32], "{text:?}");
    }
    assert_eq!(bench(&["--batch-size", "1", "8", "--json"]).batch_size, [1, 8]);
}

#[test]
fn commas_split_numbers_only() {
    assert_eq!(mixed(&["--prompt", "a,b", "c"]).prompt, ["a,b", "c"]);
    assert_eq!(mixed(&["--ids", "1,2", "3"]).ids, [1, 2, 3]);
    assert_eq!(refusal(&["--batch-size", "1,,8"]), "--batch-size 1,,8: a number is missing");
}

#[test]
fn negative_numbers_and_dashes_are_values() {
    assert_eq!(mixed(&["--bias", "-1.5"]).bias, -1.5);
    assert_eq!(mixed(&["--bias=-2"]).bias, -2.0);
    assert_eq!(mixed(&["--prompt", "-", "- item", "-1"]).prompt, ["-", "- item", "-1"]);
    assert_eq!(mixed(&["--prompt=--not-a-flag"]).prompt, ["--not-a-flag"]);
    assert_eq!(mixed(&["--prompt", "help", "", "é"]).prompt, ["help", "", "é"]);
}

#[test]
fn positionals_and_the_double_dash() {
    let m = mixed(&["a", "--quiet", "b", "--", "--bias", "-h"]);
    assert_eq!(m.files, ["a", "b", "--bias", "-h"]);
    assert!(m.quiet);
    assert_eq!(mixed(&["--prompt", "p", "--", "f"]).files, ["f"]);
    assert!(refusal(&["stray"]).starts_with("unexpected argument `stray`"));
}

#[test]
fn the_last_value_of_a_scalar_counts() {
    assert_eq!(bench(&["--repeat", "3", "--repeat=7"]).repeat, 7);
    assert!(bench(&["--json", "--json"]).json);
}

#[test]
fn values_out_of_range_name_flag_value_and_range() {
    assert_eq!(
        refusal(&["--batch-size", "4", "0"]),
        "--batch-size 0: expected a whole number from 1 to 1048576"
    );
    assert_eq!(
        refusal(&["--repeat", "-1"]),
        "--repeat -1: expected a whole number from 1 to 100000"
    );
    assert_eq!(
        refusal(&["--dtype", "int4"]),
        "--dtype int4: expected one of: auto, float32, bfloat16, float16"
    );
    assert!(refusal(&["--seed=1.5"]).starts_with("--seed 1.5: expected a whole number"));
    assert!(refusal(&["--input-len", "1e3"]).starts_with("--input-len 1e3: "));
    assert!(refusal(&["--mem-fraction-static", "1.5"]).contains("above 0 and up to 1"));
    let json = refusal(&["--json-model-override-args", "{\"a\":"]);
    assert!(json.starts_with("--json-model-override-args {\"a\":: expected a JSON"), "{json}");
    assert!(refusal(&["--json-model-override-args", "[1]"]).contains("expected a JSON object"));
}

#[test]
fn missing_and_superfluous_values() {
    assert!(refusal(&["--batch-size"]).starts_with("--batch-size: a value is missing"));
    assert!(refusal(&["--batch-size", "--json"]).starts_with("--batch-size: a value is missing"));
    assert!(refusal(&["--run-name", "--json"]).starts_with("--run-name: a value is missing"));
    assert_eq!(refusal(&["--json=yes"]), "--json yes: this flag takes no value");
    assert_eq!(bench(&["--result-filename="]).result_filename, "", "an empty value is a value");
    assert_eq!(bench(&["--result-filename", ""]).result_filename, "");
}

#[test]
fn unknown_flags_suggest_the_nearest() {
    for (typed, meant) in [
        ("--bach-size", "--batch-size"),
        ("--inputlen", "--input-len"),
        ("--output-length", "--output-len"),
        ("--results-filename=x", "--result-filename"),
        ("--modelpath", "--model-path"),
    ] {
        let name = typed.split('=').next().unwrap();
        let wanted = format!("unknown flag {name}; did you mean {meant}?");
        assert!(refusal(&[typed, "1"]).starts_with(&wanted), "{}", refusal(&[typed, "1"]));
    }
    assert!(refusal(&["--frobnicate"]).starts_with("unknown flag --frobnicate (see"));
    assert!(refusal(&["-x"]).starts_with("unknown flag -x"));
}

#[test]
fn other_tools_spellings() {
    let m = model(&["--model", "org/name", "--max-model-len", "512", "--tp", "1"]).unwrap();
    assert_eq!(m.model_path.as_deref(), Some("org/name"));
    assert_eq!(m.context_length, Some(512));
    assert!(model(&["--tensor-parallel-size=1", "--pp", "1", "--dp", "1", "--ep", "1"]).is_ok());
    let wrong = refusal(&["--tp", "0"]);
    assert!(wrong.starts_with("--tp-size 0: expected a whole number from 1"), "{wrong}");
}

#[test]
fn model_flags_arrive() {
    assert_eq!(model(&[]).unwrap(), ModelFlags::default());
    let m = model(&[
        "--load-format=dummy",
        "--dtype",
        "bfloat16",
        "--device",
        "cpu",
        "--json-model-override-args",
        "{\"num_hidden_layers\": 2, \"rope\": {\"x\": 1}}",
        "--chunked-prefill-size",
        "-1",
        "--threads",
        "2",
        "--random-seed",
        "18446744073709551615",
    ])
    .unwrap();
    assert_eq!(m.load_format, LoadFormat::Dummy);
    assert_eq!(m.dtype, DtypeChoice::Bfloat16);
    assert_eq!(m.device, DeviceChoice::Cpu);
    assert_eq!(m.config_override["rope"]["x"], 1);
    assert_eq!(m.chunked_prefill_size, Chunking::Off);
    assert_eq!(m.threads, Some(2));
    assert_eq!(m.random_seed, Some(u64::MAX));
}

#[test]
fn what_this_build_lacks_is_refused_and_never_ignored() {
    for (text, start) in [
        (&["--tp", "2"][..], "--tp-size 2: not available in this build; accepted: 1"),
        (&["--pp-size", "2"], "--pp-size 2: not available"),
        (&["--dp-size", "2"], "--dp-size 2: not available"),
        (&["--ep-size", "2"], "--ep-size 2: not available"),
    ] {
        let error = model(text).unwrap_err();
        assert_eq!(error.exit_code(), 2);
        assert!(error.message.starts_with(start), "{error}");
    }
    let notes = model(&["--device", "cpu", "--disable-cuda-graph"]).unwrap().notes;
    assert!(notes[0].contains("CUDA graphs have no effect"), "{notes:?}");
}

#[test]
fn gpu_flags_reach_the_device() {
    let m = model(&["--device", "cuda", "--base-gpu-id", "2"]).unwrap();
    assert_eq!((m.device, m.gpu, m.graph_sizes), (DeviceChoice::Cuda, 2, None));
    let sizes = |flags: &[&str]| model(flags).unwrap().graph_sizes;
    assert_eq!(sizes(&["--device", "emulated", "--cuda-graph-max-bs", "8"]), Some(8));
    assert_eq!(sizes(&["--disable-cuda-graph", "--cuda-graph-max-bs", "8"]), Some(0));
}

/// The default in a flag's help is the default that is used: giving it changes nothing.
#[test]
fn help_tells_the_real_defaults() {
    let mut checked = 0;
    for flag in BenchOneBatch::get_args_info().flags {
        let FlagInfoKind::Option { .. } = flag.kind else { continue };
        let text = flag.description;
        assert!(text.contains("(default"), "{}: no default in its help", flag.long);
        assert!(!text.contains("{}"), "{}", flag.long);
        let Some((_, rest)) = text.split_once("(default ") else { continue };
        let value = rest.split_once(')').unwrap().0;
        if flag.long.starts_with("--profile") {
            continue;
        }
        let mut plain = bench(&[]);
        let mut given: Vec<&str> = vec![flag.long];
        given.extend(value.split(' '));
        let mut with = bench(&given);
        plain.fill_lists();
        with.fill_lists();
        assert_eq!(plain, with, "{} {value}", flag.long);
        checked += 1;
    }
    assert!(checked >= 18, "only {checked} flags have a literal default");
}

#[test]
fn every_model_command_has_all_shared_flags_once() {
    let shared = SharedFlags::get_args_info();
    let own = BenchOneBatch::get_args_info();
    for flag in shared.flags {
        let same = own.flags.iter().filter(|f| f.long == flag.long).count();
        assert_eq!(same, 1, "{}", flag.long);
    }
}

fn pacer(text: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_pacer")).args(text).output().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn the_program_helps() {
    for text in [&[][..], &["help"], &["--help"], &["-h"]] {
        let output = pacer(text);
        assert_eq!(output.status.code(), Some(0));
        for command in COMMANDS {
            assert!(stdout(&output).contains(command.name), "{text:?}: {}", command.name);
        }
    }
    let version = stdout(&pacer(&["--version"]));
    assert!(version.starts_with("pacer ") && version.contains('('), "{version}");
}

#[test]
fn every_command_helps_in_every_spelling() {
    for command in COMMANDS {
        let direct = stdout(&pacer(&[command.name, "--help"]));
        assert!(direct.starts_with(&format!("Usage: pacer {}", command.name)));
        for flag in (command.info)().flags {
            assert!(direct.contains(flag.long), "{} {}", command.name, flag.long);
        }
        assert!(direct.lines().all(|l| l.chars().count() <= 100));
        let dashed = format!("--{}", command.name);
        assert_eq!(stdout(&pacer(&[&dashed, "-h"])), direct);
        assert_eq!(stdout(&pacer(&["help", command.name])), direct);
        assert_eq!(stdout(&pacer(&[&command.name.replace('-', "_"), "--help"])), direct);
    }
}

#[test]
fn the_program_refuses_with_2() {
    for (text, start) in [
        (&["bench-one-bach"][..], "error: unknown command bench-one-bach; did you mean bench-one"),
        (&["nonsense"], "error: unknown command nonsense (see `pacer help`)"),
        (&["bench-one-batch", "--bogus"], "error: unknown flag --bogus"),
        (&["--bench-one-batch", "--repeat", "0"], "error: --repeat 0: expected a whole number"),
        (&["bench-one-batch", "--tp", "4"], "error: --tp-size 4: not available"),
        (&["bench-one-batch", "--profile-steps", "2"], "error: --profile-steps: give --profile"),
        (
            &["bench-one-batch", "--profile", "--profile-prefix", "../x"],
            "error: --profile-prefix \"../x\": it begins with a dot",
        ),
        (&["help", "nonsense"], "error: unknown command nonsense"),
        (&["calibrate", "--threads", "0"], "error: --threads 0: expected a whole number"),
    ] {
        let output = pacer(text);
        assert_eq!(output.status.code(), Some(2), "{text:?}");
        assert!(stderr(&output).starts_with(start), "{}", stderr(&output));
        assert_eq!(stdout(&output), "");
        assert_eq!(stderr(&output).lines().count(), 1);
    }
}

#[cfg(unix)]
#[test]
fn arguments_that_are_not_utf8_are_refused() {
    use std::os::unix::ffi::OsStrExt;
    let word = std::ffi::OsStr::from_bytes(b"--model\xff");
    let output = Command::new(env!("CARGO_BIN_EXE_pacer")).arg(word).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).contains("not valid UTF-8"));
}

#[cfg(unix)]
#[test]
fn a_closed_pipe_ends_it_quietly() {
    let program = env!("CARGO_BIN_EXE_pacer");
    let script = format!("{{ sleep 0.3; {program} bench-one-batch --help; echo $? >&2; }} | true");
    let output = Command::new("sh").args(["-c", &script]).output().unwrap();
    assert_eq!(stderr(&output).trim(), "0");
}

#[test]
fn calibrate_prints_and_stores() {
    let folder = std::env::temp_dir().join(format!("pacer-cli-cache-{}", std::process::id()));
    let output = Command::new(env!("CARGO_BIN_EXE_pacer"))
        .args(["calibrate", "--json", "--threads=1", "--duration-ms", "10", "--buffer-mib", "8"])
        .env("XDG_CACHE_HOME", &folder)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let printed: serde_json::Value = serde_json::from_str(&stdout(&output)).unwrap();
    let file = std::fs::read_to_string(folder.join("pacer/calibration.json")).unwrap();
    let stored: serde_json::Value = serde_json::from_str(&file).unwrap();
    assert_eq!(stored["entries"][0], printed);
    assert!(printed["flops_per_s"].as_f64().unwrap() > 1e7);
    std::fs::remove_dir_all(&folder).unwrap();
}
