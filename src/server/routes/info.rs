//! What is served, and how: the fields that bench clients read. No secret is in them.

use serde_json::{Map, Value, json};

use super::super::auth::Access;
use super::super::context::ModelFacts;
use super::{Call, Reply, Route};
use crate::http::{Refused, Response};

pub const ROUTES: &[Route] = &[
    Route { path: "/model_info", methods: &["GET"], access: Access::User, handle: model_info },
    Route { path: "/get_model_info", methods: &["GET"], access: Access::User, handle: model_info },
    Route { path: "/server_info", methods: &["GET"], access: Access::User, handle: server_info },
    Route {
        path: "/get_server_info",
        methods: &["GET"],
        access: Access::User,
        handle: server_info,
    },
    Route { path: "/version", methods: &["GET"], access: Access::User, handle: version },
];

fn facts(model: &ModelFacts) -> Map<String, Value> {
    let facts = json!({
        "model_path": model.path,
        "served_model_name": model.served_name,
        "tokenizer_path": model.tokenizer_path,
        "is_generation": true,
        "preferred_sampling_params": null,
        "weight_version": "default",
        "load_format": model.format,
        "reasoning_parser": null,
        "tool_call_parser": null,
        "disaggregation_mode": "null",
        "has_image_understanding": false,
        "has_audio_understanding": false,
        "architectures": [model.architecture],
        "dtype": model.dtype,
        "model_digest": model.digest,
        "vocab_size": model.vocab,
        "context_length": model.context,
    });
    facts.as_object().cloned().unwrap_or_default()
}

fn model_info(call: &mut Call) -> Result<Reply, Refused> {
    let facts = Value::Object(facts(call.context.model()?));
    Ok(Reply::Now(Response::json(200, &facts)))
}

fn version(_: &mut Call) -> Result<Reply, Refused> {
    let version = json!({ "version": env!("CARGO_PKG_VERSION"), "commit": commit() });
    Ok(Reply::Now(Response::json(200, &version)))
}

fn commit() -> &'static str {
    option_env!("PACER_COMMIT").unwrap_or("unknown")
}

fn server_info(call: &mut Call) -> Result<Reply, Refused> {
    let model = call.context.model()?;
    let options = &call.context.options;
    let mut info = options.public.clone();
    info.extend(facts(model));
    let gigabytes = |bytes: u64| bytes as f64 / f64::from(1 << 30);
    let state = json!({
        "world_size": 1,
        "effective_max_running_requests_per_dp": model.max_running,
        "max_running_requests": model.max_running,
        "last_gen_throughput": call.stats.throughput(std::time::Instant::now()),
        "memory_usage": {
            "weight": gigabytes(model.weights_bytes),
            "kvcache": gigabytes(model.kv_bytes),
            "token_capacity": model.capacity,
            "graph": 0.0,
        },
        "disaggregation_mode": "null",
        "decode_cuda_graph_bs": null,
    });
    let more = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "server": "pacer",
        "commit": commit(),
        "device": model.device,
        "host": options.host,
        "port": call.context.bound.port(),
        "dp_size": 1, "tp_size": 1, "pp_size": 1, "ep_size": 1, "attn_dp_size": 1,
        "max_total_num_tokens": model.capacity,
        "page_size": model.page_size,
        "chunked_prefill_size": model.step_tokens,
        "max_running_requests": model.max_running,
        "uptime": call.context.started.elapsed().as_secs_f64(),
        "internal_states": [state],
    });
    info.extend(more.as_object().cloned().unwrap_or_default());
    Ok(Reply::Now(Response::json(200, &Value::Object(info))))
}
