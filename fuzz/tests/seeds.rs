//! Runs every seed through its target, without a fuzzer and on a stable compiler.

use std::fs;
use std::path::Path;

#[test]
fn seeds_hold() {
    for (name, run) in pocketcard_fuzz::TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds").join(name);
        let seeds: Vec<_> = fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())).collect();
        assert!(seeds.len() >= 3, "{name} has hardly any seeds");
        for seed in seeds {
            let path = seed.expect("a seed").path();
            eprintln!("{}", path.display());
            run(&fs::read(&path).expect("a readable seed"));
        }
        // And what no seed holds: nothing at all, and too little of everything.
        run(&[]);
        for byte in 0..=255 {
            run(&[byte]);
            run(&[byte; 40]);
        }
    }
}
