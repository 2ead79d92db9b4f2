//! What the bytes of a run may depend on beside its pipeline: the machine, and the versions of operators.

use std::collections::BTreeMap;

use super::dir::Machine;
use crate::spec::{Pipeline, Stage};

/// This machine; the device is left open.
pub fn this() -> Machine {
    Machine {
        platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
        cpu: cpu_class().to_owned(),
        device: String::new(),
    }
}

/// The level of SIMD instructions that numeric code chooses by, in the names of the x86-64 psABI.
fn cpu_class() -> &'static str {
    #[cfg(target_arch = "x86_64")]
    {
        let v3 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
        let v4 = is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vl");
        match (v3, v4) {
            (true, true) => "x86-64-v4",
            (true, false) => "x86-64-v3",
            _ => "x86-64",
        }
    }
    #[cfg(not(target_arch = "x86_64"))]
    std::env::consts::ARCH
}

/// The version of each operator that a pipeline uses.
pub fn operators(pipeline: &Pipeline) -> BTreeMap<String, u32> {
    let mut versions = BTreeMap::new();
    for stage in pipeline.stages.values() {
        if let Stage::Views(views) = stage {
            for spec in views.chain().operators() {
                versions.insert(spec.name().to_owned(), spec.def().version);
            }
        }
    }
    versions
}
