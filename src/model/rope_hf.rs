//! Rotary parameters in `config.json`: `rope_theta` with `rope_scaling`, or `rope_parameters` as
//! newer files write them (flat, or by layer type).

use crate::error::{Error, Result};

use super::config::Config;
use super::fields::Fields;
use super::rope::{Rope, Scaling, longrope_attention_factor, yarn_mscale};

/// The tables of a model: one, or for Gemma 3 the global one and that of sliding layers.
pub fn ropes(f: &Fields, name: &str, c: &Config) -> Result<Vec<Rope>> {
    let default_theta = match name {
        "MixtralForCausalLM" | "Gemma3ForCausalLM" => 1e6,
        "SmolLM3ForCausalLM" => 2e6,
        _ => 1e4,
    };
    let nested = f.object("rope_parameters")?;
    let by_type = |kind: &'static str| match &nested {
        Some(p) if p.get(kind).is_some() => p.object(kind),
        _ => Ok(None),
    };
    let global = match by_type("full_attention")? {
        Some(p) => Some(p),
        None => nested_or_scaling(f)?,
    };
    let theta = match global.as_ref().map(|p| p.f64("rope_theta")).transpose()?.flatten() {
        Some(theta) => theta,
        None => f.f64("rope_theta")?.unwrap_or(default_theta),
    };
    let dim = rotary_dim(f, global.as_ref(), c)?;
    let scaling = match &global {
        Some(p) => scaling(f, p, c, dim)?,
        None => Scaling::None,
    };
    let mut ropes = vec![Rope { dim, theta, scaling }];
    if name == "Gemma3ForCausalLM" {
        let local = match by_type("sliding_attention")? {
            Some(p) => p.f64("rope_theta")?,
            None => f.f64("rope_local_base_freq")?,
        };
        ropes.push(Rope { dim, theta: local.unwrap_or(1e4), scaling: Scaling::None });
    }
    Ok(ropes)
}

fn nested_or_scaling<'a>(f: &Fields<'a>) -> Result<Option<Fields<'a>>> {
    match f.object("rope_parameters")? {
        Some(p) if p.get("rope_type").is_some() || p.get("rope_theta").is_some() => Ok(Some(p)),
        _ => f.object("rope_scaling"),
    }
}

fn rotary_dim(f: &Fields, p: Option<&Fields>, c: &Config) -> Result<usize> {
    let nested = p.map(|p| p.f64("partial_rotary_factor")).transpose()?.flatten();
    let factor = match nested {
        Some(factor) => factor,
        None => f.f64("partial_rotary_factor")?.unwrap_or(1.0),
    };
    if !(factor > 0.0 && factor <= 1.0) {
        return Err(Error::unsupported(format!(
            "config.json: partial_rotary_factor is {factor}, expected above 0 and up to 1"
        )));
    }
    Ok((c.head_dim as f64 * factor) as usize)
}

fn scaling(f: &Fields, p: &Fields, c: &Config, dim: usize) -> Result<Scaling> {
    let kind = match p.str("rope_type")? {
        Some(kind) => kind,
        None => p.str("type")?.unwrap_or("default"),
    };
    match kind {
        "default" => Ok(Scaling::None),
        "linear" => Ok(Scaling::Linear { factor: positive(p, "factor")? }),
        "llama3" => Ok(Scaling::Llama3 {
            factor: positive(p, "factor")?,
            low_freq_factor: positive(p, "low_freq_factor")?,
            high_freq_factor: positive(p, "high_freq_factor")?,
            original_context: positive(p, "original_max_position_embeddings")?,
        }),
        "yarn" => yarn(p, c),
        "longrope" | "su" => longrope(f, p, c, dim),
        other => Err(Error::unsupported(format!(
            "rope_scaling: type {other:?} is not supported; supported are default, linear, llama3, \
             yarn, longrope"
        ))),
    }
}

fn positive(p: &Fields, name: &str) -> Result<f64> {
    match p.f64(name)? {
        Some(value) if value.is_finite() && value > 0.0 => Ok(value),
        found => Err(Error::unsupported(format!(
            "rope_scaling: {name} is {}, expected a number above 0",
            found.map_or("missing".to_owned(), |v| v.to_string())
        ))),
    }
}

fn yarn(p: &Fields, c: &Config) -> Result<Scaling> {
    let original = p.f64("original_max_position_embeddings")?.unwrap_or(c.max_context as f64);
    let factor = match p.f64("factor")? {
        Some(_) => positive(p, "factor")?,
        None => c.max_context as f64 / original.max(1.0),
    };
    let attention_factor = match (
        p.f64("attention_factor")?,
        p.f64("mscale")?.filter(|m| *m != 0.0),
        p.f64("mscale_all_dim")?.filter(|m| *m != 0.0),
    ) {
        (Some(given), _, _) => given,
        (None, Some(m), Some(all)) => yarn_mscale(factor, m) / yarn_mscale(factor, all),
        _ => yarn_mscale(factor, 1.0),
    };
    Ok(Scaling::Yarn {
        factor,
        original_context: original,
        beta_fast: p.f64("beta_fast")?.unwrap_or(32.0),
        beta_slow: p.f64("beta_slow")?.unwrap_or(1.0),
        attention_factor,
        truncate: p.bool("truncate")?.unwrap_or(true),
    })
}

fn longrope(f: &Fields, p: &Fields, c: &Config, dim: usize) -> Result<Scaling> {
    let original = match f.usize("original_max_position_embeddings")? {
        Some(n) => Some(n),
        None => p.usize("original_max_position_embeddings")?,
    };
    let factor = match original {
        Some(n) => c.max_context as f64 / n.max(1) as f64,
        None => p.f64("factor")?.unwrap_or(1.0),
    };
    let original_context = original.unwrap_or(c.max_context);
    let factors = |name: &str| -> Result<Vec<f64>> {
        let list = p.f64s(name)?.unwrap_or_default();
        if list.len() != dim / 2 || list.iter().any(|v| !v.is_finite() || *v <= 0.0) {
            return Err(Error::unsupported(format!(
                "rope_scaling: {name} has {} entries, expected {} numbers above 0",
                list.len(),
                dim / 2
            )));
        }
        Ok(list)
    };
    let default = longrope_attention_factor(factor, original_context);
    Ok(Scaling::LongRope {
        short: factors("short_factor")?,
        long: factors("long_factor")?,
        original_context,
        attention_factor: p.f64("attention_factor")?.unwrap_or(default),
    })
}
