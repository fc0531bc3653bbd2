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

/// A seed that no longer gets past the management key would leave half of the card unfuzzed, and nobody would see it.
#[test]
fn seeds_of_the_card_succeed_with_every_command() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("seeds/card");
    let mut successes = std::collections::BTreeMap::<u8, u32>::new();
    let mut entries = successes.clone();
    for seed in fs::read_dir(folder).expect("seeds") {
        let bytes = fs::read(seed.expect("a seed").path()).expect("a readable seed");
        let played = pocketcard_fuzz::card::play(&bytes);
        for (all, played) in [(&mut successes, played.commands), (&mut entries, played.entries)] {
            played.into_iter().for_each(|(ins, count)| *all.entry(ins).or_default() += count);
        }
    }
    println!("{successes:X?}");
    for ins in [0x20, 0x24, 0x2C, 0x47, 0x87, 0xA4, 0xCB, 0xDB, 0xF6, 0xF7, 0xF8, 0xFA, 0xFB, 0xFF] {
        assert!(successes.contains_key(&ins), "no seed succeeds with {ins:02X}");
    }
    for ins in [0x20, 0x24, 0x2C] {
        assert!(entries.contains_key(&ins), "no seed enters a PIN for {ins:02X}");
    }
}
