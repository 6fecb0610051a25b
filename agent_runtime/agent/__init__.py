"""The agent: a run is planned, decided, acted and observed until it ends. Layer: agent.

The one idea: what happens in a run is decided by one pure function (`loop.advance`), and everything that
touches the world (model, tools, store, clock) happens around it. The three modules and the data between
them:

    LLM module                  task execution module             environment interaction module
    llm.base.Backend  <-- prompt --  loop, run, driver  -- call -->  environment, tools
                      -- P(y|x), text -->               <-- observation --

May import llm, decision, contract, stats and the light parts of observability; nothing here imports the web
framework or torch, and nothing here ever runs code that a model wrote.
"""
