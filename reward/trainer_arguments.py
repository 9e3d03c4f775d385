"""What every script that trains LoRA tells TRL and PEFT."""

from typing import TYPE_CHECKING

from reward.settings import LoraSettings

if TYPE_CHECKING:
    from peft import LoraConfig


def lora_config(settings: LoraSettings, task_type: str, **more) -> "LoraConfig":
    """PEFT's settings of a new adapter; `more` are further ones of LoraConfig."""
    from peft import LoraConfig

    targets = settings.lora_targets
    return LoraConfig(
        task_type=task_type,
        r=settings.lora_r,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules=targets if targets == "all-linear" else [name.strip() for name in targets.split(",")],
        **more,
    )


def trainer_arguments(settings: LoraSettings, validate: bool, first_step: int) -> dict:
    """Arguments of TRL's configs for a run that validates or not, from its first step or resumed from a later one."""
    import torch

    interval = "steps" if settings.eval_steps else "epoch"
    return {
        "use_cpu": not torch.cuda.is_available(),  # lets several processes share a CPU too
        "output_dir": settings.output_dir,
        "learning_rate": settings.learning_rate,
        "num_train_epochs": settings.epochs,
        "max_steps": settings.max_steps,
        "per_device_train_batch_size": settings.batch_size,
        "per_device_eval_batch_size": settings.batch_size,
        "gradient_accumulation_steps": settings.gradient_accumulation,
        "warmup_steps": settings.warmup_fraction,
        "lr_scheduler_type": "cosine",
        "gradient_checkpointing": settings.gradient_checkpointing,
        "logging_steps": settings.logging_steps,
        "logging_first_step": True,
        "logging_nan_inf_filter": False,  # PackedTrainer stops there
        "eval_strategy": interval if validate else "no",
        "eval_steps": settings.eval_steps or None,
        "eval_on_start": validate and not first_step,
        "save_strategy": interval,
        "save_steps": settings.eval_steps or 500,
        "restore_callback_states_from_checkpoint": True,  # how long the loss has not fallen
        "load_best_model_at_end": validate,
        "metric_for_best_model": "loss",  # finer than accuracy, which few pairs make coarse
        # the base is loaded in its dtype and what is trained stays float32: no autocast
        "bf16": False,
        "max_length": None,  # what is too long is dropped and counted beforehand
        "remove_unused_columns": False,
        "ddp_find_unused_parameters": False,  # every trained weight is in every pass
        "dataloader_pin_memory": False,
        "report_to": [name.strip() for name in settings.report_to.split(",")],
        "seed": settings.seed,
    }
