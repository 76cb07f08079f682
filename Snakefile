# A job for each parameter file in params/, by the command `aggregation run`; docs/running.md has more.
#   snakemake --cores 2 --keep-going
#   snakemake --jobs 50 --executor slurm --retries 2 --config runs="demo nz-tax" options="--force"
OUT = config.get("out", "outputs")
RUNS = str(config["runs"]).split() if "runs" in config else glob_wildcards("params/{run,[^/]+}.yaml").run

rule all:
    input: expand(f"{OUT}/.done/{{run}}", run=RUNS)
    shell: "aggregation index {OUT:q}"

# Its mark is not the run's manifest.json: Snakemake would delete that before it runs again.
rule run:
    input: "params/{run}.yaml"
    output: touch(f"{OUT}/.done/{{run}}")
    params: options=config.get("options", "")
    shell: "aggregation run {input:q} --set run={wildcards.run:q} --out {OUT:q} {params.options}"
